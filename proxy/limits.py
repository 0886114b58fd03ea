"""Rate and concurrency: how much of the proxy one client key, or all callers together, may use. Counted per worker."""

import threading
import time

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from proxy.auth import Caller
from proxy.errors import Overloaded, RateLimitExceeded

RETRY_FULL_S = 1.0


class RateLimits:
    """Requests per minute of each client key, by a moving window."""

    def __init__(self) -> None:
        self._limiter: SlidingWindowCounterRateLimiter | None = None  # its storage starts a thread: not before the fork
        self._making = threading.Lock()

    def count(self, caller: Caller) -> None:
        """Count one request. Raises RateLimitExceeded with the seconds until one is free again."""
        if caller.requests_per_minute is None:
            return
        limiter = self._limiter or self._make_limiter()
        limit = RateLimitItemPerMinute(caller.requests_per_minute)
        if limiter.hit(limit, caller.label):
            return
        # The limiter's windows end on the wall clock.
        left_s = limiter.get_window_stats(limit, caller.label).reset_time - time.time()
        raise RateLimitExceeded("The rate limit of this API key is used up.", retry_after_s=min(max(left_s, 1.0), 60.0))

    def _make_limiter(self) -> SlidingWindowCounterRateLimiter:
        with self._making:
            if self._limiter is None:
                self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
            return self._limiter


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
