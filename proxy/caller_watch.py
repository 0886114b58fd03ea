"""Sees callers that go away while their request runs; a WSGI server alone would notice at its second write only.

One thread (a greenlet under gevent) per worker watches the sockets of all running requests. A socket that turns
readable is looked at without taking anything: nothing there means that the caller has closed it. A caller that only
closed its sending half looks the same and is taken for gone, as nginx does. Bytes of a next, pipelined request end the
watching of that socket, since it stays readable from then on.
"""

import selectors
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

LOOK_EVERY_S = 0.2


class CallerWatch:
    """Tells a running request that its caller has gone, within about LOOK_EVERY_S."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._changed = threading.Condition()  # guards the selector's map
        self._thread: threading.Thread | None = None

    def watch(self, sock: socket.socket, on_gone: Callable[[], None]) -> None:
        """Call `on_gone` once when the peer of `sock` closes; unwatch() must come before the socket is closed."""
        with self._changed:
            self._drop(sock)  # whatever had this descriptor before is gone
            self._selector.register(sock, selectors.EVENT_READ, (sock, on_gone))
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="caller-watch", daemon=True)
                self._thread.start()
            self._changed.notify()

    def unwatch(self, sock: socket.socket) -> None:
        with self._changed:
            self._drop(sock)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._selector.get_map():
                    self._changed.wait()
            # A bounded wait: gevent's selector starts to watch a socket at its next select() only.
            for key, _ in self._selector.select(LOOK_EVERY_S):
                self._look(key)

    def _look(self, key: selectors.SelectorKey) -> None:
        with self._changed:
            if self._selector.get_map().get(key.fd) is not key:
                return  # unwatched meanwhile; the descriptor may be another's by now
            sock, on_gone = key.data
            gone = _is_closed(sock)
            self._drop(sock)
        if gone:
            on_gone()

    def _drop(self, sock: socket.socket) -> None:
        with suppress(KeyError, ValueError):  # dropped before
            self._selector.unregister(sock)


def _is_closed(sock: socket.socket) -> bool:
    try:
        return not sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True
