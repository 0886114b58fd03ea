"""Waiting for a socket's next bytes under gevent, at two thirds of the cost of its own recv().

recv() asks the system first, which for a stream nearly always answers that nothing is there, and makes a timer for each
wait. Here the wait comes first, and one timer per connection is wound up again and again. A wait in a thread needs none
of it, and TLS may hold bytes that no system knows of: both read as usual.
"""

import socket
import ssl
from math import ceil
from typing import Any

import gevent
from gevent import monkey

_READ = 1  # of gevent's loop.io()


class Late(BaseException):
    """Thrown into the waiting greenlet; nobody but the wait itself is to catch it."""


class ReadableWait:
    """The waits of one connection's reader, one at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self._hub = gevent.get_hub()
        self._readable = self._hub.loop.io(sock.fileno(), _READ)
        self._timer: Any = None
        self._timer_s = 0.0
        self._waiting: Any = None  # the greenlet, while it waits

    def until(self, timeout_s: float) -> bool:
        """Whether there was something to read, or the end, within timeout_s (rounded up to a twentieth)."""
        timeout_s = ceil(timeout_s * 20) / 20
        if timeout_s != self._timer_s:
            self._make_timer(timeout_s)
        self._waiting = gevent.getcurrent()
        self._timer.again(self._late)
        try:
            self._hub.wait(self._readable)
            return True
        except Late:
            return False
        finally:
            self._waiting = None
            self._timer.stop()

    def close(self) -> None:
        """To be called before the socket is closed."""
        self._readable.close()
        if self._timer is not None:
            self._timer.close()

    def _make_timer(self, timeout_s: float) -> None:
        if self._timer is not None:
            self._timer.close()
        # A timer that repeats is the kind that can be wound up again.
        self._timer, self._timer_s = self._hub.loop.timer(timeout_s, timeout_s), timeout_s

    def _late(self) -> None:
        if self._waiting is not None:
            self._waiting.throw(Late)


def readable_wait(sock: socket.socket) -> ReadableWait | None:
    """A wait for this socket, or None where it is better read as usual."""
    if isinstance(sock, ssl.SSLSocket) or not monkey.is_module_patched("socket"):
        return None
    return ReadableWait(sock)
