"""One outage of an issuer, run through a real holder with a clock moved by hand: a life of minutes takes milliseconds.

The holder's thread is played here: `renew_if_due` is called when it asked to be, and what a token still lasted for in
each stretch of time between tells how long callers would have been without one. Tests and the bench use the same.
"""

from collections.abc import Callable
from dataclasses import dataclass

from proxy.tokens.holder import TokenHolder
from proxy.tokens.sources.base import Grant, Source, TokenFetchError
from proxy.tokens.stores.memory import MemoryStore
from tests.support.clock import Clock

_STEPS_MOST = 10_000


@dataclass(frozen=True)
class Failure:
    """How an issuer fails: what the source raises, and how long that takes it."""

    name: str
    raise_: Callable[[], TokenFetchError]
    takes_s: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """What one outage did: calls that failed, seconds without a usable token, seconds from its end to a new token."""

    attempts: int
    without_s: float
    recovered_after_s: float


class _Issuer(Source):
    """Gives a new token at each fetch, but fails between two instants."""

    def __init__(self, clock: Clock, lifetime_s: float, failure: Failure) -> None:
        self.attempts = 0
        self.fetched_at = float("-inf")
        self.fails_from, self.fails_until = float("inf"), float("inf")
        self._clock, self._lifetime_s, self._failure = clock, lifetime_s, failure

    def fetch(self) -> Grant:
        began = self._clock.now
        if self.fails_from <= began < self.fails_until:
            self.attempts += 1
            self._clock.move(self._failure.takes_s)
            raise self._failure.raise_()
        self.fetched_at = began
        return Grant(f"token-of-{began}", self._lifetime_s)


def simulate_outage(
    *, lifetime_s: float, age_s: float, lasts_s: float, failure: Failure, jitter: Callable[[], float]
) -> Outcome:
    """What becomes of an outage that begins when the held token has that age; `jitter` as the holder takes it."""
    clock = Clock()
    issuer = _Issuer(clock, lifetime_s, failure)
    holder = TokenHolder("simulated", issuer, MemoryStore(), clock=clock, jitter=jitter)
    pause_s = holder.renew_if_due()
    issuer.fails_from = clock.now + age_s
    issuer.fails_until = issuer.fails_from + lasts_s
    without_s = 0.0
    for _ in range(_STEPS_MOST):
        began, token = clock.now, holder.usable_token()
        clock.move(max(pause_s, 0.0))
        pause_s = holder.renew_if_due()  # the clock may move in it, as a fetch takes its time
        usable_until = began if token is None else token.usable_until
        without_s += max(0.0, clock.now - usable_until)
        if issuer.fetched_at >= issuer.fails_until:
            return Outcome(issuer.attempts, without_s, issuer.fetched_at - issuer.fails_until)
    raise AssertionError(f"no token in {_STEPS_MOST} steps")
