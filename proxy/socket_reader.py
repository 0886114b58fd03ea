"""Reading the socket of a connection; under gevent for two thirds of the cost of its own recv().

That recv() asks the system first, which for a stream nearly always answers that nothing is there, and makes a timer for
each wait. Here the wait comes first, and one timer is wound up again for all waits of the same length. TLS may hold
bytes that no system knows of, so there the read comes first; its waits end by one deadline, however its records drip.
Threads need none of it.
"""

import os
import socket
import ssl
import time
from typing import Any

import gevent
from gevent import monkey

_READ = 1  # of gevent's loop.io()
_FULL_READS_MOST = 16  # without a wait, in which the others have their turn


class BlockingReader:
    """The reads of one socket by its own means."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def receive(self, most: int, timeout_s: float) -> bytes:
        """The next bytes, b"" at the end. Raises OSError, of which TimeoutError where none came in time."""
        self._sock.settimeout(timeout_s)
        return self._sock.recv(most)

    def close(self) -> None:
        """To be called before the socket is closed."""


class _Late(BaseException):
    """Thrown into the waiting greenlet; nobody but the wait itself is to catch it."""


class WaitingReader:
    """The reads of one socket under gevent, one at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self._fd = sock.fileno()
        self._hub = gevent.get_hub()
        self._readable = self._hub.loop.io(self._fd, _READ)
        self._timer: Any = None
        self._timer_s = 0.0
        self._waiting: Any = None  # the greenlet, while it waits
        self._full_reads = 0  # on end, and as long as they could be

    def receive(self, most: int, timeout_s: float) -> bytes:
        """As BlockingReader.receive(); without a wait where the last read left something behind, a few times on end."""
        if not 0 < self._full_reads < _FULL_READS_MOST:
            self._wait(timeout_s)
            self._full_reads = 0
        try:
            data = os.read(self._fd, most)
        except BlockingIOError:  # nothing was left, or woken for nothing
            self._full_reads = 0
            return self.receive(most, timeout_s)
        self._full_reads = self._full_reads + 1 if len(data) == most else 0
        return data

    def close(self) -> None:
        """As BlockingReader.close(): gevent's loop would else watch a descriptor that is another's by then."""
        self._readable.close()
        if self._timer is not None:
            self._timer.close()

    def _wait(self, timeout_s: float) -> None:
        if timeout_s != self._timer_s:
            self._make_timer(timeout_s)
        self._waiting = waiting = gevent.getcurrent()
        # What hub.wait() does, without an object for each wait.
        self._readable.start(waiting.switch)
        self._timer.again(self._late)
        try:
            self._hub.switch()
        except _Late:
            raise TimeoutError from None
        finally:
            self._readable.stop()
            self._timer.stop()
            self._waiting = None

    def _make_timer(self, timeout_s: float) -> None:
        if self._timer is not None:
            self._timer.close()
        # A timer that repeats is the kind that can be wound up again.
        self._timer, self._timer_s = self._hub.loop.timer(timeout_s, timeout_s), timeout_s

    def _late(self) -> None:
        if self._waiting is not None:
            self._waiting.throw(_Late)


class TlsReader(WaitingReader):
    """The reads of one TLS socket under gevent."""

    def __init__(self, sock: ssl.SSLSocket) -> None:
        super().__init__(sock)
        self._sock = sock

    def receive(self, most: int, timeout_s: float) -> bytes:
        """As BlockingReader.receive()."""
        deadline = time.monotonic() + timeout_s
        while True:
            self._sock.settimeout(0.0)
            try:
                return self._sock.recv(most)
            except ssl.SSLWantReadError:
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    raise TimeoutError from None
                self._wait(left_s)


def socket_reader(sock: socket.socket) -> BlockingReader | WaitingReader:
    if not monkey.is_module_patched("socket"):
        return BlockingReader(sock)
    return TlsReader(sock) if isinstance(sock, ssl.SSLSocket) else WaitingReader(sock)
