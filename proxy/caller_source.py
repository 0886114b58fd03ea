"""What gunicorn's parser reads a connection from, with a limit for each of its waits, which gunicorn has not.

Idle for 75 s; then 10 s for a head, from its first byte on, and 30 s for a body, however it drips. Of an upload that
goes on as it comes, only the time counts in which a piece is awaited: how long it takes in all is limited by the
upstream's `total_s` alone. For gevent workers; with threads gunicorn waits for each read anew.
"""

import socket
import time
from contextlib import suppress
from contextvars import ContextVar

from proxy.socket_io import socket_reader

IDLE_S = 75.0
HEAD_S = 10.0
BODY_S = 30.0
WRITE_S = 60.0  # a caller that never reads is cut
DISCARDED_MOST_BYTES = 32 * 1024 * 1024
_DISCARDED_BYTES = 64 * 1024  # at a time

# Said by the worker, for each connection that it reads from a CallerSource and whose writes it limits.
waits_are_limited: ContextVar[bool] = ContextVar("llm_proxy.waits_are_limited", default=False)


class CallerSource:
    """One caller's connection. Once it has ended, it stays so, though Linux would go on after a shutdown()."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._reader = socket_reader(sock)
        self._deadline: float | None = None  # none while idle
        self._has_ended = False

    def expect_request(self, *, has_begun: bool = False) -> None:
        """`has_begun`: some of it came with the request before."""
        self._deadline = time.monotonic() + HEAD_S if has_begun else None

    def expect_body(self, within_s: float | None = None) -> None:
        """From here on, for what the app reads of it and for what it leaves."""
        self._deadline = time.monotonic() + (BODY_S if within_s is None else within_s)

    def recv(self, most: int) -> bytes:
        """The next bytes, b"" at the end. Raises OSError, of which TimeoutError where they took too long."""
        if self._has_ended:
            return b""
        left_s = IDLE_S if self._deadline is None else self._deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        data = self._reader.receive(most, left_s)
        if self._deadline is None:
            self._deadline = time.monotonic() + HEAD_S
        self._has_ended = not data
        return data

    def discard(self) -> None:
        """Read what comes and keep nothing, until the caller ends it, or it is too much or too late. Raises OSError."""
        left = DISCARDED_MOST_BYTES
        while left > 0 and (data := self.recv(_DISCARDED_BYTES)):
            left -= len(data)

    def end_if_idle(self) -> None:
        """Let a wait for the next request find the end, but for a request that is here already."""
        if self._deadline is None:
            with suppress(OSError):  # the caller was faster
                self._sock.shutdown(socket.SHUT_RD)

    def close(self) -> None:
        """To be called before the socket is closed."""
        self._reader.close()
