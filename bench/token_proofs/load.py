"""Load on a proxy: threads that send chat requests at a steady rate and note how each was answered.

The rate is open: a slow answer does not keep the others back, as long as there are threads. Nothing is retried, so
what a caller would have seen is what is counted.
"""

import http.client
import threading
import time
from collections import Counter
from dataclasses import dataclass
from types import TracebackType

PATH = "/v1/chat/completions"
ANSWER_WITHIN_S = 15.0
BROKEN = 0  # in the place of a status: no answer came
_FIELDS = {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class Sample:
    """One request: sent when (`time.monotonic`), answered after so many seconds, and how."""

    at: float
    took_s: float
    status: int
    retry_after: str | None = None
    error: str = ""


class Load:
    """Requests on one port, from its start to its stop."""

    def __init__(self, port: int, *, per_second: float, threads: int = 8, keep_alive: bool = True) -> None:
        """`keep_alive` off: a connection each, as no server that restarts can keep the idle ones."""
        self._port = port
        self._keep_alive = keep_alive
        self._stopped = threading.Event()
        self._running = threading.Event()
        self._running.set()
        self._samples: list[list[Sample]] = [[] for _ in range(threads)]
        self._busy = [False] * threads
        gap_s = threads / per_second
        self._threads = [
            threading.Thread(target=self._send_steadily, args=(number, gap_s, number / per_second), daemon=True)
            for number in range(threads)
        ]

    def samples(self) -> list[Sample]:
        """All that have been answered so far, in the order in which they were sent."""
        return sorted((sample for one in self._samples for sample in list(one)), key=lambda sample: sample.at)

    def pause(self) -> None:
        """Send nothing more; returns when what was sent is answered."""
        self._running.clear()
        while any(self._busy):
            time.sleep(0.01)

    def resume(self) -> None:
        self._running.set()

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._running.set()
        for thread in self._threads:
            thread.join(2 * ANSWER_WITHIN_S)

    def _send_steadily(self, number: int, gap_s: float, offset_s: float) -> None:
        due = time.monotonic() + offset_s
        caller = Caller(self._port, keep_alive=self._keep_alive)
        while not self._stopped.wait(max(0.0, due - time.monotonic())):
            self._busy[number] = True
            if self._running.is_set():
                self._samples[number].append(caller.ask())
            self._busy[number] = False
            if not self._running.is_set():
                self._running.wait()
                due = time.monotonic()
            # Behind by more than a gap, as after a pause of the machine: no burst to make up for it.
            due = max(due + gap_s, time.monotonic() - gap_s)
        caller.close()


class Caller:
    """One connection to a proxy, made anew where it broke."""

    _numbers = 0
    _lock = threading.Lock()

    def __init__(self, port: int, *, keep_alive: bool = True) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_WITHIN_S)
        self._keep_alive = keep_alive

    def ask(self) -> Sample:
        """Send one chat request, which has a number of its own as its `user`, and read the answer whole."""
        with self._lock:
            Caller._numbers += 1
            number = Caller._numbers
        body = b'{"model": "m", "user": "%d", "messages": [{"role": "user", "content": "Hello"}]}' % number
        began = time.monotonic()
        try:
            self._connection.request("POST", PATH, body, _FIELDS)
            answer = self._connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            return Sample(began, time.monotonic() - began, BROKEN, error=type(error).__name__)
        if not self._keep_alive:
            self._connection.close()
        return Sample(began, time.monotonic() - began, answer.status, answer.headers["Retry-After"])

    def close(self) -> None:
        self._connection.close()


def failures(samples: list[Sample]) -> list[Sample]:
    return [sample for sample in samples if sample.status != 200]


def statuses(samples: list[Sample]) -> dict[str, int]:
    """How often each status came; the name of the error where none did."""
    return dict(Counter(sample.error or str(sample.status) for sample in samples))
