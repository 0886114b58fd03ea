"""Rate and concurrency: how much of the proxy one client key, or all callers together, may use.

Counted per worker; rates over all workers and hosts where they share a Redis, for as long as that answers.
"""

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Protocol

from proxy.auth import Caller
from proxy.errors import Overloaded, RateLimitExceeded

RETRY_FULL_S = 1.0
WINDOW_S = 60.0


class SharedCount(Protocol):
    """What RateLimits asks of a count that others share."""

    def take(self, label: str, most: int) -> float | None:
        """0.0 where the request was counted, else the seconds until one is free; None where nobody knows."""


class RateLimits:
    """Requests per minute of each client key: in no 60 s, wherever they begin, more than the key may send."""

    def __init__(self, shared: SharedCount | None = None, *, now: Callable[[], float] = time.monotonic) -> None:
        """`now`: a clock that nobody sets, or a step back would shut the keys out."""
        self._shared = shared
        self._now = now
        self._lock = threading.Lock()
        self._times_by_label: defaultdict[str, deque[float]] = defaultdict(deque)  # of the last minute

    def count(self, caller: Caller) -> None:
        """Count one request. Raises RateLimitExceeded with the seconds until one is free again."""
        most = caller.requests_per_minute
        if most is None:
            return
        told_s = None if self._shared is None else self._shared.take(caller.label, most)
        now = self._now()
        with self._lock:
            times = self._times_by_label[caller.label]
            while times and times[0] <= now - WINDOW_S:
                times.popleft()
            if told_s == 0.0 or (told_s is None and len(times) < most):
                times.append(now)  # what was shared too: the worker goes on with it while nobody tells
                return
            # Not always the first: a reload may have lowered the rate.
            left_s = times[len(times) - most] + WINDOW_S - now if told_s is None else told_s
        raise RateLimitExceeded("The rate limit of this API key is used up.", retry_after_s=max(left_s, 1.0))


class Slots:
    """How many requests run now: in all, and for each client key with a limit of its own."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._running = 0
        self._running_by_label: dict[str, int] = {}

    @property
    def running(self) -> int:
        return self._running

    def take(self, caller: Caller) -> None:
        """Take a slot; give_back() must follow. Raises Overloaded (the proxy is full) or RateLimitExceeded."""
        with self._lock:
            if self._running >= self._most:
                raise Overloaded(retry_after_s=RETRY_FULL_S, cause="max_concurrent_requests reached")
            mine = self._running_by_label.get(caller.label, 0)
            if caller.max_concurrent is not None and mine >= caller.max_concurrent:
                raise RateLimitExceeded(
                    "Too many requests of this API key run at the same time.", retry_after_s=RETRY_FULL_S
                )
            self._running += 1
            self._running_by_label[caller.label] = mine + 1

    def give_back(self, caller: Caller) -> None:
        with self._lock:
            self._running -= 1
            left = self._running_by_label[caller.label] - 1
            if left:
                self._running_by_label[caller.label] = left
            else:
                del self._running_by_label[caller.label]
