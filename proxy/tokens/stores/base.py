"""What a holder asks of a store."""

from contextlib import AbstractContextManager
from typing import Protocol

from proxy.tokens.record import Record


class Store(Protocol):
    """Keeps one source's record for all who share it. No method blocks for longer than one small read or write."""

    def load(self) -> Record:
        """The newest record; an empty one where nothing was saved yet."""

    def save(self, record: Record) -> None:
        """Put a record in the place of the one before. Called under the lock only."""

    def try_lock(self) -> AbstractContextManager[bool]:
        """Try, without waiting, to be the one who fetches; the context's value says whether that was won."""
