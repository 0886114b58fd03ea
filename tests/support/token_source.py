"""A token source without a network: answers from a script, can be held up, and counts."""

import itertools
import threading
from collections.abc import Callable
from typing import TypeAlias

from proxy.tokens.sources.base import Grant, Source

Answer: TypeAlias = Grant | Exception | Callable[[], Grant]

_HELD_MOST_S = 10.0


class FakeSource(Source):
    """Gives its answers in turn and then tokens of 300 s; an exception is raised, a callable is called."""

    def __init__(self, *answers: Answer) -> None:
        self.fetches = 0
        self.fetchers: set[threading.Thread] = set()
        self.closed = False
        self._answers = list(answers)
        self._numbers = itertools.count(1)
        self._entered = threading.Semaphore(0)
        self._gate = threading.Event()
        self._gate.set()

    def answer(self, *answers: Answer) -> None:
        """Put more answers behind those that are left."""
        self._answers.extend(answers)

    def hold(self) -> None:
        """Let fetches begin and not end until `let_go`."""
        self._gate.clear()

    def let_go(self) -> None:
        self._gate.set()

    def await_fetch(self) -> None:
        """Return once one more fetch has begun."""
        assert self._entered.acquire(timeout=_HELD_MOST_S), "no fetch has begun"

    def fetch(self) -> Grant:
        self.fetches += 1
        self.fetchers.add(threading.current_thread())
        self._entered.release()
        assert self._gate.wait(_HELD_MOST_S), "the fetch was held and never let go"
        answer = self._answers.pop(0) if self._answers else Grant(f"token-{next(self._numbers)}", 300.0)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, Grant) else answer()

    def close(self) -> None:
        self.closed = True
