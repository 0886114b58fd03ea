"""An access token and its instants on the host's boot clock; masked wherever it might be printed.

Made by the holder from what a source fetched. Who may use it when is decided by `schedule`.
"""

import hashlib
import time
from typing import Literal, NoReturn

from proxy.tokens import schedule

State = Literal["empty", "fresh", "stale", "expired"]


def boot_clock() -> float:
    """Seconds since the host started, suspend included: one clock for all processes of a host, and no steps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def fingerprint(secret: str) -> str:
    """8 hex digits that tell two secrets apart in a log without giving either away."""
    return hashlib.sha256(secret.encode()).hexdigest()[:8]


class Token:
    """An immutable access token; its instants are seconds of the clock that the holder was given."""

    __slots__ = (
        "expires_at",
        "fetched_at",
        "fingerprint",
        "generation",
        "jitter",
        "lifetime_s",
        "renew_at",
        "usable_until",
        "value",
    )

    def __init__(
        self, value: str, *, fetched_at: float, lifetime_s: float, generation: int, jitter: float = 0.0
    ) -> None:
        """`fetched_at` is read before the request was sent; `jitter` in [0, 1) is drawn once by whoever fetched."""
        self.value = value
        self.fetched_at = fetched_at
        self.lifetime_s = lifetime_s
        self.jitter = jitter
        self.generation = generation
        self.fingerprint = fingerprint(value)
        self.expires_at = fetched_at + lifetime_s
        self.usable_until = self.expires_at - schedule.guard_s(lifetime_s)
        self.renew_at = fetched_at + schedule.renewal_age_s(lifetime_s, jitter)

    def state(self, now: float) -> State:
        if now >= self.usable_until:
            return "expired"
        return "fresh" if now < self.renew_at else "stale"

    def is_newer_than(self, other: "Token") -> bool:
        """By generation, which a store hands on; those who were apart may give the same one to different tokens."""
        return (self.generation, self.fetched_at) > (other.generation, other.fetched_at)

    def shifted(self, seconds: float) -> "Token":
        """The same token on a clock that shows so many seconds more."""
        return Token(
            self.value,
            fetched_at=self.fetched_at + seconds,
            lifetime_s=self.lifetime_s,
            generation=self.generation,
            jitter=self.jitter,
        )

    def __repr__(self) -> str:
        return f"Token({self.fingerprint}, generation={self.generation}, expires_at={self.expires_at:.1f})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a token is not pickled")
