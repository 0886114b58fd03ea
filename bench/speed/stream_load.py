"""Many streams that arrive evenly, each over a connection of its own, and are read to their end. Caller: load.py.

The steady phase begins half a second after the last stream has its first byte and ends with the first stream that ends.
CPU, memory and frames are counted at these two instants, by this one process.
"""

import select
import socket
import time
import zlib
from typing import Any

from bench.speed.answer_reader import AnswerReader
from bench.speed.answers import DONE, STAMP, STAMP_DIGITS
from bench.speed.figures import spread_ms
from bench.speed.meter import Meter
from bench.speed.requests import Ask, chat

_READ_BYTES = 64 * 1024
_SAMPLE_EVERY = 8  # the delay of a frame is noted in every eighth stream
_SETTLE_S = 0.5
_STEADY_AT_LEAST_S = 1.5
_GRACE_S = 20.0  # after the last stream should have ended


class StreamLoad:
    """A number of streams of one model."""

    def __init__(self, ask: Ask, model: str, count: int, arrive_s: float, run: str) -> None:
        self._ask, self._model, self._count, self._run = ask, model, count, run
        self._gap_s = arrive_s / count
        self._epoll = select.epoll()
        self._open: dict[int, _Caller] = {}
        self._callers: list[_Caller] = []
        self._buffer = memoryview(bytearray(_READ_BYTES))
        self._tally = _Tally()

    def run(self, seconds: float, meter: Meter) -> dict[str, Any]:
        """Figures of all streams, each of which takes `seconds` where nothing holds it up."""
        steady = _SteadyPhase(meter, self._tally, self._count)
        began = time.monotonic()
        until = began + self._gap_s * self._count + seconds + _GRACE_S
        while time.monotonic() < until and (len(self._callers) < self._count or self._open):
            self._arrive(began)
            self._read_all()
            steady.look()
        for caller in list(self._open.values()):
            self._close(caller)
        return self._figures() | steady.figures()

    def checksums(self) -> dict[str, tuple[int, int]]:
        """CRC-32 and size of each stream's body by its identity."""
        return {caller.identity: (caller.crc, caller.size) for caller in self._callers}

    def complete(self) -> set[str]:
        return {caller.identity for caller in self._callers if caller.complete}

    def _arrive(self, began: float) -> None:
        """Connect and ask for as many as are due by now."""
        due = min(self._count, int((time.monotonic() - began) / self._gap_s) + 1)
        for number in range(len(self._callers), due):
            identity = f"{self._run}{number:06d}"
            caller = _Caller(identity, self._tally, is_sampled=number % _SAMPLE_EVERY == 0)
            self._callers.append(caller)
            caller.connect(self._ask, chat(self._ask, self._model, identity=identity, stream=True))
            if caller.sock is not None:
                self._open[caller.sock.fileno()] = caller
                self._epoll.register(caller.sock.fileno(), select.EPOLLIN)

    def _read_all(self) -> None:
        wait_s = self._gap_s if len(self._callers) < self._count else 0.05
        buffer, opened = self._buffer, self._open
        for descriptor, _ in self._epoll.poll(min(wait_s, 0.05)):
            caller = opened[descriptor]
            try:
                count = caller.sock.recv_into(buffer)
            except BlockingIOError:
                continue
            except OSError:
                count = 0
            if not count or caller.take(bytes(buffer[:count])):
                caller.end()
                self._close(caller)

    def _close(self, caller: "_Caller") -> None:
        del self._open[caller.sock.fileno()]
        caller.sock.close()

    def _figures(self) -> dict[str, Any]:
        started = [caller for caller in self._callers if caller.first_ns]
        incomplete = [caller for caller in self._callers if not caller.complete]
        return {
            "streams": self._count,
            "incomplete": len(incomplete),
            "statuses": _counts(caller.answer.status for caller in self._callers),
            "first_byte_ms": spread_ms([caller.first_ns - caller.asked_ns for caller in started]),
            "frame_delay_ms": spread_ms(self._tally.delays_ns),
            "frames": self._tally.frames,
        }


class _Tally:
    """What is counted over all streams."""

    __slots__ = ("delays_ns", "ended", "frames", "started")

    def __init__(self) -> None:
        self.frames = self.started = self.ended = 0
        self.delays_ns: list[int] = []


class _Caller:
    """One stream."""

    __slots__ = ("_last", "_tally", "answer", "asked_ns", "complete", "crc", "first_ns", "identity", "is_sampled",
                 "size", "sock")  # fmt: skip

    def __init__(self, identity: str, tally: _Tally, *, is_sampled: bool) -> None:
        self.identity, self.is_sampled, self._tally = identity, is_sampled, tally
        self.answer = AnswerReader()
        self.asked_ns = self.first_ns = self.crc = self.size = 0
        self.complete = False
        self.sock: Any = None
        self._last = b""

    def connect(self, ask: Ask, request: bytes) -> None:
        """Send the request over a new connection; without one the stream counts as incomplete."""
        try:
            self.sock = socket.create_connection((ask.host, ask.port), timeout=10)
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.asked_ns = time.monotonic_ns()
            self.sock.sendall(request)
            self.sock.setblocking(False)
        except OSError:
            if self.sock is not None:
                self.sock.close()
            self.sock = None
            self._tally.ended += 1

    def take(self, data: bytes) -> bool:
        """Use what was read; True when the answer is whole."""
        body = self.answer.feed(data)
        if body:
            if not self.first_ns:
                self.first_ns = time.monotonic_ns()
                self._tally.started += 1
            self.crc = zlib.crc32(body, self.crc)
            self.size += len(body)
            self._last = body if len(body) >= len(DONE) else self._last + body
            self._tally.frames += body.count(b"data: ")
            if self.is_sampled:
                self._note_delays(body)
        return self.answer.done

    def end(self) -> None:
        self.answer.end()
        self.complete = self.answer.done and self.answer.status == 200 and self._last.endswith(DONE)
        self._tally.ended += 1

    def _note_delays(self, body: bytes) -> None:
        now, at = time.monotonic_ns(), body.find(STAMP)
        while at >= 0:
            stamp = body[at + len(STAMP) : at + len(STAMP) + STAMP_DIGITS]
            if len(stamp) == STAMP_DIGITS:  # cut in two by a read: left out
                self._tally.delays_ns.append(now - int(stamp))
            at = body.find(STAMP, at + 1)


class _SteadyPhase:
    """From half a second after all streams run to the end of the first."""

    def __init__(self, meter: Meter, tally: _Tally, count: int) -> None:
        self._meter, self._tally, self._count = meter, tally, count
        self._begin_at: float | None = None
        self._frames = 0
        self._state = "arriving"

    def look(self) -> None:
        """Open or close the window where its time has come."""
        if self._state == "over" or self._tally.started < self._count:
            if self._tally.ended:
                self._state = "over"  # streams end before all have begun: nothing was steady
            return
        if self._begin_at is None:
            self._begin_at = time.monotonic() + _SETTLE_S
        if self._state == "arriving" and time.monotonic() >= self._begin_at and not self._tally.ended:
            self._state = "steady"
            self._frames = self._tally.frames
            self._meter.begin()
        elif self._state == "steady" and self._tally.ended:
            self._state = "over"
            self._meter.end()
            self._frames = self._tally.frames - self._frames

    def figures(self) -> dict[str, float | None]:
        """Nothing where the phase was too short to tell, as when the first stream ends before the last has begun."""
        if self._meter.seconds < _STEADY_AT_LEAST_S:
            return {}
        return {
            "frames_in_window": self._frames,
            "frames_per_second": round(self._frames / self._meter.seconds, 1),
            "cpu_us_per_frame": self._meter.cpu_us_per(self._frames),
            "memory_kb_per_stream": self._meter.kb_per(self._count),
            **self._meter.figures(),
        }


def _counts(values: Any) -> dict[str, int]:
    found: dict[str, int] = {}
    for value in values:
        found[str(value)] = found.get(str(value), 0) + 1
    return found
