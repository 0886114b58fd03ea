"""Callers that ask again as soon as they are answered, each over one kept connection. Caller: load.py."""

import select
import socket
import time
from typing import Any

from bench.speed.answer_reader import AnswerReader
from bench.speed.figures import spread_ms
from bench.speed.meter import Meter
from bench.speed.requests import Ask

_READ_BYTES = 256 * 1024
_GIVE_UP_AFTER_S = 30.0


class ClosedLoop:
    """A number of callers with the same request."""

    def __init__(self, ask: Ask, request: bytes, callers: int) -> None:
        self._epoll = select.epoll()
        self.took_ns: list[int] = []
        self.failures = 0
        self.body_bytes = 0
        made = [_Caller(self, ask, request, self._epoll) for _ in range(callers)]
        self._callers = {caller.descriptor: caller for caller in made}

    def run(self, warm_up_s: float, seconds: float, meter: Meter) -> dict[str, Any]:
        """Figures of the answers that came within `seconds`, after the warm-up."""
        for caller in list(self._callers.values()):
            caller.ask()
        self._run_for(warm_up_s)
        self.took_ns, self.failures = [], 0
        meter.begin()
        self._run_for(seconds)
        meter.end()
        answered = len(self.took_ns)
        return {
            "requests": answered,
            "failures": self.failures,
            "per_second": round(answered / meter.seconds, 1),
            "latency_ms": spread_ms(self.took_ns),
            "body_bytes": self.body_bytes,
            "cpu_us_per_request": meter.cpu_us_per(answered),
            **meter.figures(),
        }

    def replace(self, old: int, caller: "_Caller") -> None:
        """The caller has a new connection."""
        self._callers.pop(old, None)
        self._callers[caller.descriptor] = caller

    def _run_for(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            for descriptor, events in self._epoll.poll(min(left, 1.0)):
                if caller := self._callers.get(descriptor):
                    caller.serve(events)
            self._give_up_on_silent_ones()

    def _give_up_on_silent_ones(self) -> None:
        limit = time.monotonic_ns() - int(_GIVE_UP_AFTER_S * 1e9)
        for caller in list(self._callers.values()):
            if caller.asked_ns < limit:
                caller.fail()


class _Caller:
    def __init__(self, loop: ClosedLoop, ask: Ask, request: bytes, epoll: select.epoll) -> None:
        self._loop, self._ask, self._epoll = loop, ask, epoll
        self._request = memoryview(request)
        self._buffer = memoryview(bytearray(_READ_BYTES))
        self._connect()

    def _connect(self) -> None:
        self._sock = socket.create_connection((self._ask.host, self._ask.port), timeout=10)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock.setblocking(False)
        self.descriptor = self._sock.fileno()
        self._epoll.register(self.descriptor, select.EPOLLIN)

    def ask(self) -> None:
        self._answer = AnswerReader()
        self._got = 0
        self._unsent = self._request
        self.asked_ns = time.monotonic_ns()
        self._send()

    def serve(self, events: int) -> None:
        if events & select.EPOLLOUT:
            self._send()
        if not events & ~select.EPOLLOUT:
            return
        try:
            count = self._sock.recv_into(self._buffer)
        except BlockingIOError:
            return
        except OSError:
            count = 0
        if not count:
            self._answer.end()
            self._finish() if self._answer.done else self.fail()
            return
        self._got += len(self._answer.feed(bytes(self._buffer[:count])))
        if self._answer.done:
            self._finish()

    def fail(self) -> None:
        """Count it and go on over a new connection."""
        self._loop.failures += 1
        old = self.descriptor
        self._sock.close()
        self._connect()
        self._loop.replace(old, self)
        self.ask()

    def _finish(self) -> None:
        if self._answer.status != 200:
            self.fail()
            return
        self._loop.took_ns.append(time.monotonic_ns() - self.asked_ns)
        self._loop.body_bytes = self._got
        self.ask()

    def _send(self) -> None:
        was_waiting = len(self._unsent) < len(self._request)
        try:
            self._unsent = self._unsent[self._sock.send(self._unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            return  # the read that follows tells
        if self._unsent or was_waiting:
            self._epoll.modify(self.descriptor, select.EPOLLIN | (select.EPOLLOUT if self._unsent else 0))
