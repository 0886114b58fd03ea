"""Reading and writing the socket of a connection, under gevent for less than its own methods take.

Its recv() asks the system first, which for a stream nearly always answers that nothing is there, and makes a timer and
a watcher of the socket for each wait. Here the wait comes first; the watcher stays, and so does the timer, which looks
when it ends whether somebody has waited for too long. TLS may hold bytes that no system knows of, so there the read
comes first; its waits end by one deadline, however its records drip. Threads need none of it.
"""

import errno
import math
import os
import socket
import ssl
import time
from typing import Any

from gevent import get_hub, getcurrent, monkey

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

    __slots__ = ("_deadline", "_fd", "_full_reads", "_hub", "_timer", "_timer_ends", "_waiting", "_watcher")

    def __init__(self, sock: socket.socket) -> None:
        self._fd = sock.fileno()
        self._hub = get_hub()
        self._watcher: Any = self._hub.loop.io(self._fd, _READ)
        self._waiting: Any = None  # the greenlet, while it waits
        self._deadline = 0.0  # of its wait, by time.monotonic()
        self._timer: Any = None
        self._timer_ends = math.inf  # not after the deadline of the wait
        self._full_reads = 0  # on end, and as long as they could be

    def receive(self, most: int, timeout_s: float) -> bytes:
        """As BlockingReader.receive(); without a wait where the last read left something behind, a few times on end."""
        deadline = time.monotonic() + timeout_s
        while True:
            if not 0 < self._full_reads < _FULL_READS_MOST:
                self._wait(deadline)
                self._full_reads = 0
            try:
                data = os.read(self._fd, most)
            except BlockingIOError:  # nothing was left, or woken for nothing
                self._full_reads = 0
                continue
            self._full_reads = self._full_reads + 1 if len(data) == most else 0
            return data

    def close(self) -> None:
        """As BlockingReader.close(): gevent's loop would else watch a descriptor that is another's by then."""
        self._fd = -1
        self._watcher.close()
        if self._timer is not None:
            self._timer.close()

    def _wait(self, deadline: float) -> None:
        if self._fd < 0:
            raise OSError(errno.EBADF, "closed")
        self._deadline = deadline
        if deadline < self._timer_ends:
            self._start_timer()
        if not self._watcher.active:
            self._watcher.start(self._wake)
        self._waiting = getcurrent()
        try:
            self._hub.switch()
        except _Late:
            raise TimeoutError from None
        finally:
            self._waiting = None

    def _wake(self) -> None:
        if self._waiting is not None:
            self._waiting.switch()
        else:
            # Busy with what it has read, or idle: the loop would ask again and again.
            self._watcher.stop()

    def _start_timer(self) -> None:
        if self._timer is not None:
            self._timer.close()
        self._timer_ends = self._deadline
        self._timer = self._hub.loop.timer(max(0.0, self._deadline - time.monotonic()))
        self._timer.start(self._look_at_deadline)

    def _look_at_deadline(self) -> None:
        """Most waits end long before; so the timer is not wound up for each, and looks what is left when it ends."""
        self._timer_ends = math.inf
        if self._waiting is None:
            return
        if time.monotonic() < self._deadline:
            self._start_timer()
        else:
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
                self._wait(deadline)


def send_all(sock: socket.socket, data: bytes) -> None:
    """Send it all. Raises OSError, of which TimeoutError by the socket's own timeout."""
    # gevent's sendall() asks for the size of the socket's buffer each time; nearly always one send() does.
    sent = sock.send(data)
    if sent < len(data):
        sock.sendall(memoryview(data)[sent:])


def socket_reader(sock: socket.socket) -> BlockingReader | WaitingReader:
    if not monkey.is_module_patched("socket"):
        return BlockingReader(sock)
    return TlsReader(sock) if isinstance(sock, ssl.SSLSocket) else WaitingReader(sock)
