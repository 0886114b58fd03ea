"""A call that is given up when its time is over; used by the sources that make calls which nothing else ends in time.

Each call has a daemon thread of its own, a greenlet under gevent. Python cannot end a thread, so a call that was given
up goes on by itself: what it brings is thrown away, and so that a broken issuer does not fill the process with such
calls, no other one is begun while there are three.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from proxy.tokens.sources.base import TokenFetchError

GIVEN_UP_MOST = 3

T = TypeVar("T")


class TimedCalls:
    """Makes the calls of one source, one at a time."""

    def __init__(self, name: str) -> None:
        """`name` stands at the head of the errors."""
        self._name = name
        self._given_up: list[threading.Thread] = []

    def run(self, call: Callable[[], T], seconds: float, *, break_off: Callable[[], object] = lambda: None) -> T:
        """What `call` returns (blocking, at most `seconds`); also raises what it raises, of whatever type.

        Raises TokenFetchError when the time is over, after `break_off`, which shall make the call end soon; and at
        once while three calls that were given up go on.
        """
        deadline = time.monotonic() + seconds
        self._given_up = [thread for thread in self._given_up if thread.is_alive()]
        if len(self._given_up) >= GIVEN_UP_MOST:
            raise TokenFetchError(f"{self._name}: {GIVEN_UP_MOST} calls that were given up have still not ended")
        outcome: Future[T] = Future()
        thread = threading.Thread(target=_settle, args=(outcome, call), name="token-call", daemon=True)
        thread.start()
        thread.join(max(0.0, deadline - time.monotonic()))
        if not outcome.done():
            self._given_up.append(thread)
            break_off()
            raise TokenFetchError(f"{self._name}: no answer within the deadline")
        return outcome.result()


def _settle(outcome: Future[T], call: Callable[[], T]) -> None:
    try:
        outcome.set_result(call())
    except BaseException as error:  # SystemExit too; threading would print the text, and it may hold a secret
        outcome.set_exception(error)
