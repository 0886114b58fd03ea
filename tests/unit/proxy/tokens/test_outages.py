"""Outages of the issuer, begun at 300 phases of a token's life, through the real holder with a clock moved by hand."""

import random
from collections.abc import Callable, Iterator

import pytest
from loguru import logger

from proxy.tokens.holder import TokenHolder
from proxy.tokens.sources.base import Grant, Source, TokenFetchError
from proxy.tokens.stores.memory import MemoryStore
from tests.support.clock import Clock
from tests.support.simulated_outage import Failure, Outcome, simulate_outage

PHASES = 300
ATTEMPTS_MOST = 20

REFUSES = Failure("refuses connections", lambda: TokenFetchError("refused", connection=True))
HANGS = Failure("hangs", lambda: TokenFetchError("no answer within the deadline"), takes_s=5.0)
ANSWERS_503 = Failure("503", lambda: TokenFetchError("status 503"), takes_s=0.1)
FAR_RETRY_AFTER = Failure("429", lambda: TokenFetchError("status 429", retry_after_s=1e9), takes_s=0.1)
NO_RETRY_AFTER = Failure("429", lambda: TokenFetchError("status 429", retry_after_s=0.0), takes_s=0.1)
INVALID_CLIENT = Failure("invalid_client", lambda: TokenFetchError("status 401", refused=True))

FAILURES = [
    pytest.param(REFUSES, id="refuses"),
    pytest.param(HANGS, id="hangs"),
    pytest.param(ANSWERS_503, id="503"),
    pytest.param(FAR_RETRY_AFTER, id="retry-after-1e9"),
    pytest.param(NO_RETRY_AFTER, id="retry-after-0"),
    pytest.param(INVALID_CLIENT, id="invalid-client"),
]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Thousands of failed fetches are logged here, and no line of it is looked at."""
    logger.disable("proxy")
    yield
    logger.enable("proxy")


def _outages(
    lifetime_s: float, lasts_s: float, failure: Failure, jitter: Callable[[], float] | None = None
) -> list[Outcome]:
    """The outcome for each phase of the life, from just after the token came to just before it ends."""
    return [
        simulate_outage(
            lifetime_s=lifetime_s,
            age_s=(phase + 0.5) * lifetime_s / PHASES,
            lasts_s=lasts_s,
            failure=failure,
            jitter=jitter or random.Random(phase).random,
        )
        for phase in range(PHASES)
    ]


@pytest.mark.parametrize("lifetime_s", [300.0, 600.0, 3600.0])
@pytest.mark.parametrize("failure", FAILURES)
def test_outage_of_two_minutes_at_any_phase_leaves_no_instant_without_a_token(
    failure: Failure, lifetime_s: float
) -> None:
    outcomes = _outages(lifetime_s, 120.0, failure)
    assert max(outcome.without_s for outcome in outcomes) == 0
    assert max(outcome.attempts for outcome in outcomes) <= ATTEMPTS_MOST


@pytest.mark.parametrize("lifetime_s", [300.0, 600.0, 3600.0])
@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("jitter", [pytest.param(0.0, id="shortest-pauses"), pytest.param(0.999, id="longest-pauses")])
def test_no_luck_with_the_jitter_is_needed_to_ride_out_two_minutes(
    jitter: float, failure: Failure, lifetime_s: float
) -> None:
    outcomes = _outages(lifetime_s, 120.0, failure, lambda: jitter)
    assert max(outcome.without_s for outcome in outcomes) == 0
    assert max(outcome.attempts for outcome in outcomes) <= ATTEMPTS_MOST


@pytest.mark.parametrize(
    ("failure", "within_s"),
    [
        pytest.param(REFUSES, 12, id="refuses"),
        pytest.param(HANGS, 12, id="hangs"),
        pytest.param(ANSWERS_503, 12, id="503"),
        pytest.param(NO_RETRY_AFTER, 12, id="retry-after-0"),
        # What the issuer asked for is obeyed: up to 60 s, and 300 s after it has refused our credentials for long.
        pytest.param(FAR_RETRY_AFTER, 60.2, id="retry-after-1e9"),
        pytest.param(INVALID_CLIENT, 300, id="invalid-client"),
    ],
)
def test_outage_longer_than_the_token_is_over_soon_after_the_issuer_returns(failure: Failure, within_s: float) -> None:
    outcomes = _outages(300.0, 400.0, failure)
    assert max(outcome.recovered_after_s for outcome in outcomes) <= within_s
    assert min(outcome.without_s for outcome in outcomes) > 0


class _DeadForAll(Source):
    """Fails each fetch, and while it lasts lets all others who share the store try for it as well."""

    def __init__(self, clock: Clock) -> None:
        self.calls = 0
        self.others: list[TokenHolder] = []
        self._clock = clock

    def fetch(self) -> Grant:
        self.calls += 1
        others, self.others = self.others, []
        for other in others:
            other.renew_if_due()
        self._clock.move(0.3)
        raise TokenFetchError("status 503")


def test_dead_issuer_gets_one_call_a_step_from_all_who_share_a_store(clock: Clock) -> None:
    source, store = _DeadForAll(clock), MemoryStore()
    holders = [TokenHolder("a", source, store, clock=clock) for _ in range(4)]
    for step in range(1, 21):
        winner = holders[step % len(holders)]
        source.others = [holder for holder in holders if holder is not winner]
        winner.renew_if_due()
        clock.move(max(holder.renew_if_due() for holder in holders))
        assert source.calls == step


def test_attempts_and_seconds_without_a_token_are_counted() -> None:
    """The simulation can see what it looks for: an outage that the whole life cannot bridge."""
    outcome = simulate_outage(
        lifetime_s=300.0, age_s=0.0, lasts_s=1000.0, failure=ANSWERS_503, jitter=random.Random(1).random
    )
    assert outcome.attempts > 100
    assert 700 < outcome.without_s < 720
