"""A server of raw sockets on loopback: it records what came and answers with the bytes that a test gives it."""

import re
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from tests.support.loopback_server import LoopbackServer, await_end

# No test waits for longer: a fault then fails it, and does not hang it.
LIMIT_S = 5.0

# One step of an answer: bytes to send, an event to wait for, or an act on the connection.
Step = bytes | threading.Event | Callable[[socket.socket], None]

_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")


def close(sock: socket.socket) -> None:
    """Close with FIN, as a server that has nothing more to say."""
    with suppress(OSError):  # the peer was faster
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()


def reset(sock: socket.socket) -> None:
    """Close with RST, as a killed process or a broken line does."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    sock.close()


@dataclass(frozen=True, slots=True)
class Received:
    """One request: on which connection, counted from 0, and its bytes."""

    connection: int
    head: bytes
    body: bytes


class ScriptedUpstream(LoopbackServer):
    """Answers request after request with the next script; without one it stays silent until the peer goes."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.requests: list[Received] = []
        self._scripts: list[tuple[Step, ...]] = []
        super().__init__(host)
        self.host = host
        self.url = f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def connections(self) -> list[socket.socket]:
        """All that have come, in turn."""
        return [sock for sock, _ in self._accepted]

    def answer(self, *steps: Step) -> None:
        """Do these steps after the next request that has no script yet."""
        with self._changed:
            self._scripts.append(steps)

    def forget(self) -> None:
        """Drop what came and the scripts that are left, for the next test; connections stay, and keep their numbers."""
        with self._changed:
            self.requests.clear()
            self._scripts.clear()

    def wait_for_requests(self, count: int) -> None:
        self._wait(lambda: len(self.requests) >= count, f"{count} requests")

    def wait_until_left(self, connection: int) -> None:
        """Until the peer has closed that connection."""
        self._wait(lambda: len(self._accepted) > connection, f"connection {connection}")
        await_end(self._accepted[connection][1])

    def _wait(self, holds: Callable[[], bool], what: str) -> None:
        with self._changed:
            assert self._changed.wait_for(holds, LIMIT_S), f"no {what} within {LIMIT_S} s"

    def _serve(self, sock: socket.socket) -> None:
        number = [thread for _, thread in self._accepted].index(threading.current_thread())
        sock.settimeout(LIMIT_S)
        while (received := receive_request(sock)) is not None:
            with self._changed:
                self.requests.append(Received(number, *received))
                steps = self._scripts.pop(0) if self._scripts else ()
                self._changed.notify_all()
            for step in steps:
                _do(step, sock)


def receive_request(sock: socket.socket) -> tuple[bytes, bytes] | None:
    """The next request's head and body, or None where the peer closed before it was whole."""
    data = b""
    while b"\r\n\r\n" not in data:
        if not (piece := sock.recv(65536)):
            return None
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    match = _LENGTH.search(head)
    while len(body) < (int(match[1]) if match else 0):
        if not (piece := sock.recv(65536)):
            return None
        body += piece
    return head, body


def _do(step: Step, sock: socket.socket) -> None:
    if isinstance(step, bytes):
        sock.sendall(step)
    elif isinstance(step, threading.Event):
        assert step.wait(LIMIT_S)
    else:
        step(sock)
