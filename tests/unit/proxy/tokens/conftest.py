"""A hand-moved clock, holders that are closed after the test, callers in threads, and every log line."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import settings
from loguru import logger

from proxy.tokens.holder import TokenHolder
from proxy.tokens.sources.base import Source
from proxy.tokens.stores.base import Store
from proxy.tokens.stores.memory import MemoryStore
from tests.support.clock import Clock

# Starts every secret in these tests: no error text, repr or log line may hold it.
MARK = "s3cret-mark"
ENDS_WITHIN_S = 10.0

# A busy machine is no reason to fail: what must be fast is measured elsewhere.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")


@pytest.fixture
def mark() -> str:
    return MARK


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def logs() -> Iterator[list[str]]:
    """Each log line from TRACE on, its level first; checked in the end to hold no marked secret."""
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), level="TRACE", format="{level} {message}")
    yield lines
    logger.remove(sink)
    assert MARK not in "".join(lines)


@pytest.fixture
def make_holder(clock: Clock) -> Iterator[Callable[..., TokenHolder]]:
    """Builds holders with the test's clock and a middling jitter; their threads must end with the test."""
    holders: list[TokenHolder] = []

    def make_holder(source: Source, store: Store | None = None, jitter: float = 0.5) -> TokenHolder:
        name = f"source-{len(holders)}"
        holder = TokenHolder(name, source, store or MemoryStore(), clock=clock, jitter=lambda: jitter)
        holders.append(holder)
        return holder

    yield make_holder
    for holder in holders:
        holder.close()
        for thread in threads_of(holder):
            thread.join(ENDS_WITHIN_S)
            assert not thread.is_alive()


@pytest.fixture
def threads_of_holder() -> Callable[[TokenHolder], list[threading.Thread]]:
    return threads_of


def threads_of(holder: TokenHolder) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == f"token-{holder.name}"]


class Callers:
    """Threads that meet at a barrier and then make the same call."""

    def __init__(self, count: int, call: Callable[[], Any]) -> None:
        self._call = call
        self._outcomes: list[Any] = []
        self._barrier = threading.Barrier(count)
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def outcomes(self) -> list[Any]:
        """What each call returned or raised; all must have ended."""
        for thread in self._threads:
            thread.join(ENDS_WITHIN_S)
            assert not thread.is_alive(), "a caller hangs"
        return self._outcomes

    def _run(self) -> None:
        self._barrier.wait(ENDS_WITHIN_S)
        try:
            self._outcomes.append(self._call())
        except Exception as error:
            self._outcomes.append(error)


@pytest.fixture
def callers() -> type[Callers]:
    return Callers


@pytest.fixture
def await_waiting() -> Callable[[TokenHolder, int], None]:
    """Returns once so many wait at the holder: callers, and the holder's own thread unless its fetch is held.

    With one, that is the thread: before the clock is moved it must sleep, or it may see the new time by itself.
    """

    return _await_waiting


@pytest.fixture
def wake() -> Callable[[TokenHolder], None]:
    """Wakes all who wait at the holder, as the end of their time would: the test's clock does not move real timers."""

    def wake(holder: TokenHolder) -> None:
        with holder._changed:
            holder._changed.notify_all()

    return wake


@pytest.fixture
def begin_renewal(clock: Clock, wake) -> Callable[[TokenHolder, float], None]:
    """Moves the clock once the holder's thread sleeps, and lets the thread find that a renewal is due."""

    def begin_renewal(holder: TokenHolder, moved_s: float) -> None:
        holder.start()
        _await_waiting(holder, 1)
        clock.move(moved_s)
        wake(holder)

    return begin_renewal


def _await_waiting(holder: TokenHolder, count: int) -> None:
    pause = threading.Event()
    for _ in range(int(ENDS_WITHIN_S * 1000)):
        if len(holder._changed._waiters) == count:  # type: ignore[attr-defined]  # nobody else can tell
            return
        pause.wait(0.001)
    raise AssertionError(f"{count} callers never waited")
