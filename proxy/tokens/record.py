"""What all users of one token source share: the token, the back-off and the forced-fetch budget; pure transitions.

A store keeps the record, a holder moves it on. Nothing here reads a clock or does I/O, so the rules can be tested
with any sequence of instants.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

from proxy.tokens import schedule
from proxy.tokens.sources.base import Grant, TokenFetchError
from proxy.tokens.token import Token


@dataclass(frozen=True, slots=True)
class Failures:
    """Failed fetches since the last good one: how many, of what kind the last was, and when the next is due."""

    count: int
    kind: Literal["refused", "failed"]  # refused: the issuer does not accept the credentials
    next_try_s: int


@dataclass(frozen=True, slots=True)
class Record:
    """The shared state of one source. Instants are seconds of the host's boot clock."""

    token: Token | None = None
    generation: int = 0
    failures: int = 0  # failed fetches since the last good one
    refusals: int = 0  # of those in a row, refused credentials
    retry_at: float = -math.inf  # no fetch before this instant
    forced_at: tuple[float, ...] = ()  # fetches that an upstream's 401 asked for, within the last minute
    breaker_until: float = -math.inf
    breaker_s: float = 0.0

    def usable_token(self, now: float) -> Token | None:
        token = self.token
        return token if token is not None and now < token.usable_until else None

    def due_at(self, now: float) -> float:
        """The instant at which the next fetch is due; in the past where it is due now."""
        token = self.usable_token(now)
        return self.retry_at if token is None else max(self.retry_at, token.renew_at)

    def cooling_down(self, now: float) -> bool:
        """Whether the last fetch failed and the pause after it still runs."""
        return self.failures > 0 and now < self.retry_at

    def failures_at(self, now: float) -> Failures | None:
        """What has failed since the last good fetch, or None where nothing has."""
        if not self.failures:
            return None
        return Failures(self.failures, "refused" if self.refusals else "failed", max(0, math.ceil(self.retry_at - now)))

    def shifted(self, seconds: float) -> "Record":
        """The same record with its instants on a clock that shows so many seconds more."""
        return replace(
            self,
            token=None if self.token is None else self.token.shifted(seconds),
            retry_at=self.retry_at + seconds,
            forced_at=tuple(at + seconds for at in self.forced_at),
            breaker_until=self.breaker_until + seconds,
        )


def after_grant(record: Record, grant: Grant, *, fetched_at: float, now: float, jitter: float, forced: bool) -> Record:
    """The record after a good fetch: with the new token, or with the old one where the new one is no gain.

    `forced`: the upstream had refused the held token, so another one is a gain even if it ends earlier.
    Raises TokenFetchError: the new token had run out before it arrived, which is no better than no token.
    """
    calm = replace(
        record,
        failures=0,
        refusals=0,
        retry_at=fetched_at + schedule.FETCH_GAP_S,
    )
    token = Token(
        grant.access_token,
        fetched_at=fetched_at,
        lifetime_s=grant.lifetime_s,
        generation=record.generation + 1,
        jitter=jitter,
    )
    if now >= token.usable_until:
        raise TokenFetchError("the token had run out when it arrived")
    held = record.usable_token(now)
    if held is None or (held.value != token.value and (forced or token.expires_at > held.expires_at)):
        return replace(calm, token=token, generation=token.generation)
    # An issuer that caches hands out the same token until its own window opens: asking at once would loop.
    left_s = held.usable_until - now
    return replace(calm, retry_at=now + min(schedule.ask_again_s(left_s), left_s))


def after_failure(record: Record, error: TokenFetchError, *, now: float, jitter: float) -> Record:
    """The record after a failed fetch: the token stays, and the next fetch is put off."""
    failures = record.failures + 1
    refusals = record.refusals + 1 if error.refused else 0
    token = record.usable_token(now)
    left_s = 0.0 if token is None else token.usable_until - now
    if refusals:
        pause_s = schedule.refused_cool_down_s(refusals)
    elif token is not None:
        pause_s = schedule.stale_retry_s(failures, jitter)
    else:
        pause_s = schedule.cool_down_s(failures)
    if error.retry_after_s is not None:
        pause_s = max(pause_s, schedule.obeyed_retry_after_s(error.retry_after_s, left_s))
    if token is not None:
        # From expiry on callers are turned away, so one try is due at that instant whatever came before.
        pause_s = min(pause_s, left_s)
    return replace(
        record,
        failures=failures,
        refusals=refusals,
        retry_at=now + pause_s,
    )


def after_refusal(record: Record, *, now: float) -> tuple[Record, bool]:
    """The record after an upstream refused the current token, and whether a forced fetch may be made now.

    At most one in 5 s and three in 60 s; then a breaker opens for 30 s, doubling to 300 s, in which none is made.
    """
    if now < record.breaker_until or record.cooling_down(now):
        return record, False
    recent = tuple(at for at in record.forced_at if now - at < schedule.FORCED_WINDOW_S)
    if recent and now - recent[-1] < schedule.FORCED_GAP_S:
        return record, False
    if len(recent) < schedule.FORCED_MOST:
        return replace(record, forced_at=(*recent, now)), True
    if recent[-1] < record.breaker_until:
        return record, False  # the breaker has closed and nothing was fetched since, so nothing calls for a longer one
    calm_for_s = now - record.breaker_until
    open_s = schedule.breaker_s(record.breaker_s if calm_for_s < schedule.breaker_s(record.breaker_s) else 0.0)
    return replace(record, forced_at=recent, breaker_until=now + open_s, breaker_s=open_s), False
