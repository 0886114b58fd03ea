"""The access lines of a proxy as they are written, one after the other, and its complaints, out of its log file."""

import re
import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

_FACTS = re.compile(r"(\w+)=(\S+)")
_MARK = " request request_id="
# Lines of a fault of the proxy's own, and tracebacks; a killed worker is the driver's doing.
_COMPLAINT = re.compile(r"^(?:\S+ \S+ (?:ERROR|CRITICAL) |Traceback )")
# gunicorn's, when the time of a worker that had to end is over and requests still run.
_DRAINED = re.compile(r"^(\S+ \S+) WARNING  Worker graceful timeout ")
_KILLED = re.compile(r"Worker \(pid:\d+\) was sent SIGKILL!")


@dataclass(frozen=True, slots=True)
class Line:
    """What one access line says."""

    identity: str
    route: str
    status: int
    outcome: str
    body_bytes: int
    duration_ms: int
    is_stream: bool
    cause: str = ""
    method: str = "POST"  # "-" where there was no head that could be read


class AccessLog:
    """`statuses` and `ends` count all lines so far: by status, and of streams by their end, as the metrics do.

    `complaints`: what the proxy wrote at ERROR and above. `drained`: by time.monotonic(), when a worker gave up what
    was left at the end of its drain.
    """

    def __init__(self, file: Path) -> None:
        self.statuses: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()
        self.complaints: list[str] = []
        self.drained: list[float] = []
        self._file = file
        self._read_bytes = 0
        self._half = ""

    def take_new(self) -> list[Line]:
        """The lines since the last time."""
        with self._file.open("rb") as file:
            file.seek(self._read_bytes)
            data = file.read()
        self._read_bytes += len(data)
        *texts, self._half = (self._half + data.decode(errors="replace")).split("\n")
        lines = [_read(text) for text in texts if _MARK in text]
        self.drained += [_at(found[1]) for found in map(_DRAINED.match, texts) if found]
        self.complaints += [text for text in texts if _COMPLAINT.match(text) and not _KILLED.search(text)]
        self.statuses.update(str(line.status) for line in lines)
        self.ends.update(line.outcome for line in lines if line.is_stream)
        return lines


def _read(text: str) -> Line:
    facts = dict(_FACTS.findall(text))
    return Line(
        identity=facts["request_id"],
        route=facts["route"],
        status=int(facts["status"]),
        outcome=facts["outcome"],
        body_bytes=int(facts["bytes"]),
        duration_ms=int(facts["duration_ms"]),
        is_stream="frames" in facts,
        cause=text.partition(" cause=")[2],
        method=facts["method"],
    )


def _at(moment: str) -> float:
    """A line's time by time.monotonic()."""
    return datetime.fromisoformat(moment).timestamp() - time.time() + time.monotonic()
