"""A server of raw sockets on loopback: it records what came and answers with the bytes that a test gives it."""

import re
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

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


class ScriptedUpstream:
    """Answers request after request with the next script; without one it stays silent until the peer goes."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family)
        self.host = host
        self.port = int(self._listener.getsockname()[1])
        self.url = f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"
        self.requests: list[Received] = []
        self.connections: list[socket.socket] = []
        self._scripts: list[tuple[Step, ...]] = []
        self._changed = threading.Condition()  # guards what is recorded here
        self._left: set[int] = set()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def answer(self, *steps: Step) -> None:
        """Do these steps after the next request that has no script yet."""
        with self._changed:
            self._scripts.append(steps)

    def wait_for_requests(self, count: int) -> None:
        self._wait(lambda: len(self.requests) >= count, f"{count} requests")

    def wait_until_left(self, connection: int) -> None:
        """Until the peer has closed that connection."""
        self._wait(lambda: connection in self._left, f"the end of connection {connection}")

    def close_connections(self) -> None:
        """Close all that are open, as a server that is tired of idle ones; returns when they are."""
        with self._changed:
            for sock in self.connections:
                # Each thread closes its own: else its descriptor could be another's while it still reads.
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        self._wait(lambda: len(self._left) == len(self.connections), "end of all connections")

    def __enter__(self) -> "ScriptedUpstream":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join(LIMIT_S)  # no connection comes from here on
        self.close_connections()
        for thread in self._threads:
            thread.join(LIMIT_S)
            assert not thread.is_alive()

    def _wait(self, holds: Callable[[], bool], what: str) -> None:
        with self._changed:
            assert self._changed.wait_for(holds, LIMIT_S), f"no {what} within {LIMIT_S} s"

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with self._changed:
                number = len(self.connections)
                self.connections.append(sock)
                thread = threading.Thread(target=self._serve, args=(sock, number))
                self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        with suppress(OSError):
            sock.settimeout(LIMIT_S)
            while (received := _receive(sock, number)) is not None:
                with self._changed:
                    self.requests.append(received)
                    steps = self._scripts.pop(0) if self._scripts else ()
                    self._changed.notify_all()
                for step in steps:
                    _do(step, sock)
        sock.close()
        with self._changed:
            self._left.add(number)
            self._changed.notify_all()


def _receive(sock: socket.socket, number: int) -> Received | None:
    """The next request, or None where the peer closed before it was whole."""
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
    return Received(number, head, body)


def _do(step: Step, sock: socket.socket) -> None:
    if isinstance(step, bytes):
        sock.sendall(step)
    elif isinstance(step, threading.Event):
        assert step.wait(LIMIT_S)
    else:
        step(sock)
