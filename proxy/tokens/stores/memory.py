"""The store of a single process: for one worker, a read-only system, or tests."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from proxy.tokens.record import Record


class MemoryStore:
    """Keeps the record in this process; other workers fetch for themselves."""

    is_shared = False

    def __init__(self, record: Record | None = None) -> None:
        self._record = record or Record()
        self._lock = threading.Lock()

    def load(self) -> Record:
        return self._record

    def save(self, record: Record) -> None:
        self._record = record

    @contextmanager
    def try_lock(self) -> Iterator[bool]:
        won = self._lock.acquire(blocking=False)
        try:
            yield won
        finally:
            if won:
                self._lock.release()
