"""When to renew, retry and cool down: pure functions of a lifetime, a count and a random number.

Every window is a share of the token's lifetime: windows made for tokens of an hour (a fixed five minutes, say) renew
a token of five minutes on every request. All figures are seconds; `jitter` is uniform in [0, 1).
"""

import math

GUARD_S = 2.0
OUTAGE_S = 120.0  # an issuer may be away that long without any caller noticing
RETRY_CAP_S = 10.0
FETCH_DEADLINE_S = 5.0
FETCH_GAP_S = 0.25  # between two fetches' begins, however short the tokens' lives are
WAIT_DEADLINE_S = 6.0  # a request without a token waits so long for the shared fetch
FORCED_GAP_S = 5.0
FORCED_WINDOW_S = 60.0
FORCED_MOST = 3


def guard_s(lifetime_s: float) -> float:
    """The last part of the life in which a token is not sent: it must still be valid when the upstream reads it.

    Two seconds, or a quarter of a life below eight seconds, which two seconds would eat up.
    """
    return min(GUARD_S, 0.25 * lifetime_s)


def margin_s(lifetime_s: float) -> float:
    return min(max(0.05 * lifetime_s, 2.0), 30.0)


def lead_s(lifetime_s: float) -> float:
    """How long before its expiry a token's renewal is due at the latest: an outage, a retry and a fetch fit in."""
    rides_out = OUTAGE_S + margin_s(lifetime_s) + RETRY_CAP_S + FETCH_DEADLINE_S
    return min(0.5 * lifetime_s, max(0.2 * lifetime_s, rides_out))


def renewal_age_s(lifetime_s: float, jitter: float) -> float:
    """The age at which renewal is due: 120 to 150 s for a token of 300 s; never for one that does not expire."""
    if math.isinf(lifetime_s):
        return math.inf
    return lifetime_s - lead_s(lifetime_s) - 0.1 * lifetime_s * jitter


def stale_retry_s(failures: int, jitter: float) -> float:
    """The pause after the nth failed renewal while the token is still usable: 1, 2, 4, 8, 10, 10 ... s, jittered.

    Times uniform(0.75, 1): from 0.5 on, one outage in forty would take more than 20 attempts (docs/decisions/0004).
    """
    return min(2.0 ** min(failures - 1, 10), RETRY_CAP_S) * (0.75 + 0.25 * jitter)


def cool_down_s(failures: int) -> float:
    """The pause after the nth failed fetch while no token is usable: 0.5, 1, 2, 4, 5, 5 ... s."""
    return min(0.5 * 2.0 ** min(failures - 1, 10), 5.0)


def refused_cool_down_s(refusals: int) -> float:
    """The pause after the issuer refused our credentials for the nth time in a row: 30 s doubling to 300 s."""
    return min(30.0 * 2.0 ** min(refusals - 1, 10), 300.0)


def obeyed_retry_after_s(asked_s: float, left_s: float) -> float:
    """What of the issuer's `Retry-After` is obeyed: 60 s at most, and never past half of the time left."""
    most = 60.0 if left_s <= 0 else min(60.0, left_s / 2)
    return min(max(asked_s, 0.0), most)


def ask_again_s(left_s: float) -> float:
    """The pause after the issuer gave the same token again, or one that ends no later."""
    return max(10.0, left_s / 4)


def breaker_s(opened_before_s: float) -> float:
    """How long the breaker stays open for the next time: 30 s doubling to 300 s."""
    return min(max(30.0, 2 * opened_before_s), 300.0)
