"""Exchange: one request's hold on what it waits for at the upstream, so that another thread can break it off."""

import threading
from collections.abc import Callable


class Exchange:
    """Made per request by the view, filled by the transport, broken off by whoever sees that the caller has gone."""

    __slots__ = ("_break", "_lock", "broken_off")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._break: Callable[[], None] | None = None
        self.broken_off = False

    def attach(self, break_off: Callable[[], None]) -> None:
        """Name the act that ends the wait (shut a socket down, cancel a task); done at once if it is too late."""
        with self._lock:
            self._break = break_off
            if self.broken_off:
                break_off()

    def detach(self) -> None:
        """From here on nothing is left to break: the socket may belong to another request next."""
        with self._lock:
            self._break = None

    def break_off(self) -> None:
        with self._lock:
            self.broken_off = True
            if self._break is not None:
                self._break()
