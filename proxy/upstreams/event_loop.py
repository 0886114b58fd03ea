"""The worker's one event loop, in a real thread, where the async clients live.

uvloop, since a plain asyncio loop hung under gevent's patches. Between the loop and a request stands a socket pair
and nothing else: it is the one thing on which a greenlet and a thread can both wait, while gevent's locks are not for
native threads.
"""

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Generic, TypeVar

import uvloop
from gevent.monkey import get_original

from proxy.errors import CallerGone
from proxy.upstreams.exchange import Exchange

T = TypeVar("T")

# gevent's close() leaves the act to a hub, and in the loop's thread there is none that runs.
_write, _close = get_original("os", "write"), get_original("os", "close")


class EventLoopThread:
    """Runs coroutines for request threads and greenlets. Started on first use, in the worker."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting = threading.Lock()

    def run(self, work: Callable[[], Coroutine[Any, Any, T]], exchange: Exchange) -> T:
        """The coroutine's result; its exception is raised here. Raises CallerGone when the exchange is broken off."""
        loop = self._running_loop()
        reader, writer = socket.socketpair()
        with reader:
            job = _Job(work, writer.detach())
            _post(loop, job.start)
            exchange.attach(lambda: _post(loop, job.cancel))
            try:
                reader.recv(1)
            finally:
                exchange.detach()
                if not job.done:
                    _post(loop, job.cancel)
        return job.result()

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._starting:
            if self._loop is None:
                self._loop = uvloop.new_event_loop()
                # gevent replaces threads by greenlets; a loop in a greenlet would stop the whole worker.
                get_original("_thread", "start_new_thread")(self._loop.run_forever, ())
            return self._loop

    def close(self) -> None:
        if self._loop is not None:
            _post(self._loop, self._loop.stop)
            self._loop = None


class _Job(Generic[T]):
    """One coroutine on the loop. All methods but result() run in the loop's thread."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, T]], done_fd: int) -> None:
        self._work = work
        self._done_fd = done_fd
        self._task: asyncio.Task[T] | None = None
        self.done = False

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._work())
        self._task.add_done_callback(self._tell)

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def result(self) -> T:
        task = self._task
        if task is None or task.cancelled():
            raise CallerGone
        return task.result()

    def _tell(self, _: "asyncio.Task[T]") -> None:
        self.done = True
        with suppress(OSError):  # the one who waited may be gone
            _write(self._done_fd, b".")
        _close(self._done_fd)


def _post(loop: asyncio.AbstractEventLoop, act: Callable[[], object]) -> None:
    with suppress(RuntimeError):  # the loop is closed: the worker ends
        loop.call_soon_threadsafe(act)
