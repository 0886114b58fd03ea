"""Sees callers that go away while their request runs; a WSGI server alone would notice at its second write only.

One thread (a greenlet under gevent) per worker watches the sockets of all requests that run for longer than a moment;
most are over before it would be worth the while. When a socket turns readable, the system is asked for the state of
its connection. A caller that only closed its sending half looks the same as one that has gone, and is taken for it, as
nginx does. With bytes before that end, of a body or of a next, pipelined request, the socket stays readable, and the
system is asked again and again from then on.
"""

import selectors
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

LOOK_EVERY_S = 0.2
_TCP_ESTABLISHED = 1  # the first byte of Linux's struct tcp_info


class CallerWatch:
    """Tells a running request that its caller has gone, within about twice LOOK_EVERY_S."""

    def __init__(self) -> None:
        # Not in the selector yet. Most requests come and go here, so they take no lock: the dict's own steps are whole.
        self._new: dict[socket.socket, Callable[[], None]] = {}
        self._selector = selectors.DefaultSelector()
        self._behind: dict[socket.socket, Callable[[], None]] = {}  # those with bytes of a body or a next request
        self._changed = threading.Condition(threading.Lock())  # guards the selector
        self._sleeps = False  # the thread, until a socket comes
        self._thread: threading.Thread | None = None

    def watch(self, sock: socket.socket, on_gone: Callable[[], None]) -> None:
        """Call `on_gone` once when the peer of `sock` closes; unwatch() must come before the socket is closed."""
        self._new[sock] = on_gone
        if self._sleeps or self._thread is None or not self._thread.is_alive():
            self._wake()

    def unwatch(self, sock: socket.socket) -> None:
        if self._new.pop(sock, None) is None:
            with self._changed:
                self._drop(sock)

    def _wake(self) -> None:
        with self._changed:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="caller-watch", daemon=True)
                self._thread.start()
            self._changed.notify()

    def _run(self) -> None:
        while True:
            # A bounded wait: gevent's selector starts to watch a socket at its next select() only.
            for key, _ in self._selector.select(LOOK_EVERY_S):
                self._look(key)
            for sock in list(self._behind):
                self._look_behind(sock)
            with self._changed:
                # First said, then looked: who comes in between wakes us.
                self._sleeps = True
                while not (self._new or self._behind or self._selector.get_map()):
                    self._changed.wait()
                self._sleeps = False
                self._take_new()

    def _take_new(self) -> None:
        with suppress(KeyError):  # the last one is over meanwhile
            while self._new:
                self._add(*self._new.popitem())

    def _look(self, key: selectors.SelectorKey) -> None:
        with self._changed:
            if self._selector.get_map().get(key.fd) is not key:
                return  # unwatched meanwhile; the descriptor may be another's by now
            sock, on_gone = key.data
            self._drop(sock)
            gone = _is_closed(sock)
            if gone:
                _shut_down(sock)
            else:
                self._behind[sock] = on_gone
        if gone:
            on_gone()

    def _look_behind(self, sock: socket.socket) -> None:
        with self._changed:
            if sock not in self._behind or not _has_ended(sock):
                return
            on_gone = self._behind.pop(sock)
            _shut_down(sock)
        on_gone()

    def _add(self, sock: socket.socket, on_gone: Callable[[], None]) -> None:
        self._drop(sock)  # whatever had this descriptor before is gone
        with suppress(ValueError, OSError):  # closed meanwhile
            self._selector.register(sock, selectors.EVENT_READ, (sock, on_gone))

    def _drop(self, sock: socket.socket) -> None:
        self._behind.pop(sock, None)
        with suppress(KeyError, ValueError):  # dropped before
            self._selector.unregister(sock)


def _is_closed(sock: socket.socket) -> bool:
    """By the state of the connection: where a body is still read, a look may find nothing left, and would wait."""
    has_ended = _has_ended(sock)
    if has_ended is not None:
        return has_ended
    try:
        return not sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True


def _has_ended(sock: socket.socket) -> bool | None:
    """Whether the peer has closed it, whatever is left to be read; None where it is no TCP."""
    try:
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != _TCP_ESTABLISHED
    except OSError:
        return None


def _shut_down(sock: socket.socket) -> None:
    """Wake who writes to it: the caller may have closed one half only, and read nothing."""
    with suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
