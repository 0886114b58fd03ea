"""What a source is: one call that gets an access token, or says why not."""

import math
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Grant:
    """A good reply: the access token and its lifetime in seconds from before the request was sent."""

    access_token: str = field(repr=False)
    lifetime_s: float


class TokenFetchError(Exception):
    """A fetch that brought no token. The text says why, without a secret and without the reply's text.

    `refused`: the issuer does not accept our credentials, so trying again soon is of no use.
    `connection`: no connection came about, or it broke: trying again at once may help.
    `retry_after_s`: what the issuer's `Retry-After` asked for.
    """

    def __init__(
        self, reason: str, *, refused: bool = False, connection: bool = False, retry_after_s: float | None = None
    ) -> None:
        super().__init__(reason)
        self.refused = refused
        self.connection = connection
        self.retry_after_s = retry_after_s


class Source(Protocol):
    """Sources name this as their base; only `fetch` has no default."""

    watch_s: float = math.inf
    """How often `has_changed` is asked, in seconds; inf: never, as only a fetch can tell."""

    takes_most_s: float = 5.0
    """How long a fetch may take; who waits for another's fetch gives it up as stuck only after that."""

    def fetch(self) -> Grant:
        """Get a new token (blocking: at most 5 s over the network, 10 s from a program). Raises TokenFetchError."""

    def has_changed(self) -> bool:
        """Whether a fetch would now bring something else than the last one did. Quick; never raises."""
        return False

    def close(self) -> None:
        """Let go of connections; a fetch in flight may fail."""
        return  # most have nothing to let go of
