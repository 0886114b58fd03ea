"""An upstream of raw sockets that shows what has come of a request while the rest is still on its way, and may answer
before that. One request on each connection; for whole ones there is ScriptedUpstream."""

import socket
from collections.abc import Callable
from contextlib import suppress

from tests.support.loopback_server import LIMIT_S, LoopbackServer, await_end

READ_BYTES = 65536


class UploadUpstream(LoopbackServer):
    """Keeps all bytes of each connection; without an answer it reads on until the peer goes."""

    def __init__(self) -> None:
        self.received: list[bytearray] = []  # by connection, in turn
        self._answers: list[tuple[bytes, tuple[bytes | Callable[[], object], ...]]] = []
        super().__init__()
        # Inherited by what is accepted: what nobody reads soon fills it.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, READ_BYTES)
        self.url = f"http://127.0.0.1:{self.port}"

    def answer(self, mark: bytes, *steps: bytes | Callable[[], object]) -> None:
        """On the next connection, once these bytes have come: what to send, or to do, in turn."""
        with self._changed:
            self._answers.append((mark, steps))

    def wait_for(self, mark: bytes, connection: int = 0) -> bytes:
        """All that has come of a connection as soon as these bytes are in it."""
        with self._changed:
            come = self._changed.wait_for(lambda: self._has(mark, connection), LIMIT_S)
            assert come, f"no {mark!r} within {LIMIT_S} s: {[bytes(each[-200:]) for each in self.received]}"
            return bytes(self.received[connection])

    def wait_until_left(self, connection: int = 0) -> bytes:
        """All that came until the peer closed that connection."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.received) > connection, LIMIT_S)
        await_end(self._accepted[connection][1])
        return bytes(self.received[connection])

    def forget(self) -> None:
        """Close what is open and drop what came, for the next test."""
        self.close_connections()
        with self._changed:
            self.received.clear()
            self._accepted.clear()
            self._answers.clear()

    def _has(self, mark: bytes, connection: int) -> bool:
        return len(self.received) > connection and mark in self.received[connection]

    def _serve(self, sock: socket.socket) -> None:
        come = bytearray()
        with self._changed:
            self.received.append(come)
            mark, steps = self._answers.pop(0) if self._answers else (b"", ())
        while data := sock.recv(READ_BYTES):
            with self._changed:
                come += data
                self._changed.notify_all()
            if mark in come:
                for step in steps:
                    _do(step, sock)
                steps = ()


def _do(step: bytes | Callable[[], object], sock: socket.socket) -> None:
    if isinstance(step, bytes):
        with suppress(OSError):
            sock.sendall(step)
    else:
        step()
