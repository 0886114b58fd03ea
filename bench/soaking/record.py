"""What the driver knows of one request: who asked, when, over which port, and how it ended."""

import itertools
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Literal

# left: by the caller itself. upstream error: the upstream's or ours about it, also as the last event of a stream.
# shed: 503 and 429 of ours. refused: any other 4xx of ours. broken: the connection ended before the answer did.
# silent: neither an answer nor an end. no request: never a whole head, so nothing that could be counted.
Outcome = Literal["ok", "left", "upstream error", "shed", "refused", "broken", "silent", "no request"]


@dataclass(slots=True)
class Record:
    """One request as its caller saw it; `identity` is its request id and the model that it asks for."""

    identity: str
    kind: str
    began: float  # this and `ended` by time.monotonic()
    port: int = 0  # of the caller's end of the connection
    ended: float = 0.0
    outcome: Outcome = "broken"
    status: int = 0
    body_bytes: int = 0
    sha256: str = ""  # of the body, for a stream without the proxy's own comments
    left_at: float | None = None  # by time.time(), as the upstream's journal is
    lines_least: int = 1  # access lines that it must have; a reset may destroy a request before it is read
    fault: str = ""  # what is wrong with the answer itself


class Register:
    """Gives each request its identity, and keeps the records that have ended until the books take them."""

    def __init__(self, prefix: str) -> None:
        """`prefix`: by which the requests of this driver are told from those of others."""
        self.prefix = prefix
        self.started = 0
        self._numbers = itertools.count(1)
        self._ended: deque[Record] = deque()  # append and popleft are atomic
        self._lock = threading.Lock()

    def begin(self, kind: str) -> Record:
        with self._lock:
            self.started += 1
            return Record(f"{self.prefix}{next(self._numbers):07d}", kind, time.monotonic())

    def end(self, record: Record) -> None:
        """To be called once for each record, however it went."""
        record.ended = time.monotonic()
        self._ended.append(record)

    def take_ended(self) -> list[Record]:
        """Those that have ended since the last time."""
        return [self._ended.popleft() for _ in range(len(self._ended))]
