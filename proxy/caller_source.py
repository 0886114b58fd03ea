"""What gunicorn's parser reads a connection from, with a limit for each of its waits, which gunicorn has not.

Idle for 75 s; then 10 s for a head, from its first byte on, and 30 s for a body, however it drips. For gevent workers.
"""

import socket
import time

from proxy.socket_reader import socket_reader

IDLE_S = 75.0
HEAD_S = 10.0
BODY_S = 30.0


class CallerSource:
    """One caller's connection."""

    def __init__(self, sock: socket.socket) -> None:
        self._reader = socket_reader(sock)
        self._deadline: float | None = None  # none while idle

    def expect_request(self) -> None:
        self._deadline = None

    def expect_body(self) -> None:
        self._deadline = time.monotonic() + BODY_S

    def recv(self, most: int) -> bytes:
        """The next bytes, b"" at the end. Raises OSError, of which TimeoutError where they took too long."""
        if self._deadline is None:
            data = self._reader.receive(most, IDLE_S)
            self._deadline = time.monotonic() + HEAD_S
            return data
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        return self._reader.receive(most, left_s)

    def close(self) -> None:
        """To be called before the socket is closed."""
        self._reader.close()
