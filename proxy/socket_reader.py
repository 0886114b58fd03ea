"""Reading the socket of a connection; under gevent for two thirds of the cost of its own recv().

That recv() asks the system first, which for a stream nearly always answers that nothing is there, and makes a timer for
each wait. Here the wait comes first, and one timer per connection is wound up again and again. Threads need none of it,
and TLS may hold bytes that no system knows of: both are read as usual.
"""

import os
import socket
import ssl
from typing import Any

import gevent
from gevent import monkey

_READ = 1  # of gevent's loop.io()


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
        self._left_some = False  # the last read was as long as it could be

    def receive(self, most: int, timeout_s: float) -> bytes:
        """As BlockingReader.receive(); without a wait where the last read left something behind."""
        if not self._left_some:
            self._wait(timeout_s)
        self._left_some = False
        try:
            data = os.read(self._fd, most)
        except BlockingIOError:  # nothing was left, or woken for nothing
            return self.receive(most, timeout_s)
        if len(data) == most:
            self._left_some = True
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


def socket_reader(sock: socket.socket) -> BlockingReader | WaitingReader:
    if isinstance(sock, ssl.SSLSocket) or not monkey.is_module_patched("socket"):
        return BlockingReader(sock)
    return WaitingReader(sock)
