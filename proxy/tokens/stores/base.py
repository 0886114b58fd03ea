"""What a holder asks of a store."""

from contextlib import AbstractContextManager
from typing import Protocol

from proxy.tokens.record import Record


class Store(Protocol):
    """Keeps one source's record for all who share it. Only the holder's thread calls it, so it may use a network."""

    @property
    def is_shared(self) -> bool:
        """Whether what is saved now reaches all who share the source, and not this process or host alone."""

    def load(self) -> Record:
        """The newest record, an empty one where nothing was saved yet; the same object until another was saved."""

    def save(self, record: Record) -> None:
        """Put a record in the place of the one before. Called under the lock only."""

    def try_lock(self) -> AbstractContextManager[bool]:
        """Try, without waiting, to be the one who fetches; the context's value says whether that was won."""
