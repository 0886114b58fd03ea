"""What a request carries to an upstream: ready bytes, or a body that is sent as it comes. No I/O of its own."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class StreamedContent:
    """A body in pieces. It can be begun anew, for a request that is sent once more.

    An empty piece says that nothing has come for a while. What `pieces` raises ends the request before its body is
    whole, and goes on to whoever sent it.
    """

    pieces: Callable[[], Iterator[bytes]]
    length: int | None = None  # of all; where nobody knows it, it leaves in chunks


Content: TypeAlias = bytes | StreamedContent
