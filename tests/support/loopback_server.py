"""A server on loopback with a thread for each connection, and no thread left when it is closed.

What is done with a connection is left to those that build on it: the servers beside.
"""

import socket
import threading
from contextlib import suppress
from typing import Self

LIMIT_S = 10.0  # of each wait: a fault then fails a test, and does not hang it


class LoopbackServer:
    """Accepts until it is closed. A subclass has all that its `_serve` needs before it calls `__init__` here."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family)
        self.port = int(self._listener.getsockname()[1])
        self._changed = threading.Condition()  # guards what is recorded
        self._accepted: list[tuple[socket.socket, threading.Thread]] = []  # all that have come, in turn
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def close_connections(self) -> None:
        """Close all that are open, as a server that is tired of idle ones; returns when their threads have ended."""
        with self._changed:
            accepted = self._accepted.copy()
        for sock, _ in accepted:
            with suppress(OSError):  # closed already; closing is left to its thread, which may still read
                sock.shutdown(socket.SHUT_RDWR)
        for _, thread in accepted:
            await_end(thread)

    def close(self) -> None:
        """Accept no more and close what is open; may be called again."""
        with suppress(OSError):  # closed already
            self._listener.shutdown(socket.SHUT_RDWR)
        await_end(self._accepting)  # no connection comes from here on
        self._listener.close()
        self.close_connections()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        with suppress(OSError):  # the listener was shut down
            while True:
                sock, _ = self._listener.accept()
                thread = threading.Thread(target=self._run, args=(sock,))
                with self._changed:
                    self._accepted.append((sock, thread))
                    thread.start()
                    self._changed.notify_all()

    def _run(self, sock: socket.socket) -> None:
        # A descriptor of its own to serve: TLS takes it over, and `sock` must stay good to shut the connection down.
        with sock, sock.dup() as served, suppress(OSError):  # the peer broke off, which is what many tests are about
            served.settimeout(LIMIT_S)
            self._serve(served)

    def _serve(self, sock: socket.socket) -> None:
        """What to do with a connection; it is closed afterwards, whatever happens."""
        raise NotImplementedError


def await_end(thread: threading.Thread) -> None:
    thread.join(LIMIT_S)
    assert not thread.is_alive()
