"""What all who ask a Redis or Valkey need: a client that gives up soon, and a breaker for when it is away.

What is asked, and what goes on without an answer, is left to `tokens.stores.redis` and `shared_rates`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import redis
from loguru import logger
from redis.backoff import NoBackoff
from redis.retry import Retry

TIMEOUT_S = 0.5
CONNECTIONS = 4
SLOW_S = 0.25  # a fetch of a token takes some seven calls, and requests may be waiting for it
SLOW_CALLS = 2  # one after the other; a single one may be this host's own stall
AWAY_S = 5.0

T = TypeVar("T")


def connect(url: str, ca_bundle: Path | None = None, *, timeout_s: float = TIMEOUT_S) -> redis.Redis:
    """A client that tries nothing twice; it connects at its first call.

    `timeout_s` is for each address, each read, and a free connection. Nothing ends the look-up of a host name.
    """
    tls = {"ssl_ca_certs": str(ca_bundle)} if ca_bundle is not None and url.startswith("rediss:") else {}
    pool = redis.BlockingConnectionPool.from_url(
        url,
        max_connections=CONNECTIONS,
        timeout=timeout_s,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
        **tls,
    )
    return redis.Redis.from_pool(pool)


class Breaker:
    """Whether Redis is to be asked: after a failed call, or slow ones in a row, it is left alone for a while.

    For one thread that asks; `is_away` and `may_ask` are for all.
    """

    def __init__(self, name: str, meanwhile: str, *, clock: Callable[[], float]) -> None:
        """For the log: whose Redis it is, and what happens while it is away."""
        self._name = name
        self._meanwhile = meanwhile
        self._clock = clock
        self._slow_calls = 0
        self._away_until = float("-inf")
        self._is_away = False

    @property
    def is_away(self) -> bool:
        """Until a call shows that it is back."""
        return self._is_away

    def may_ask(self) -> bool:
        return self._clock() >= self._away_until

    def ask(self, call: Callable[[], T]) -> T | None:
        """What the call returns, or None where Redis does not answer; from then on it is away."""
        before = self._clock()
        try:
            answer = call()
        except Exception as error:  # whatever it is that answers there: no request fails for Redis
            self._leave_alone(type(error).__name__)
            return None
        self._slow_calls = self._slow_calls + 1 if self._clock() - before > SLOW_S else 0
        if self._slow_calls >= SLOW_CALLS:
            self._leave_alone("slow")
        elif self._is_away and not self._slow_calls:
            logger.info("{}: Redis is back", self._name)
            self._is_away = False
        return answer

    def _leave_alone(self, reason: str) -> None:
        self._away_until = self._clock() + AWAY_S
        if not self._is_away:
            logger.error("{}: Redis is away ({}); {}", self._name, reason, self._meanwhile)
        self._is_away = True
