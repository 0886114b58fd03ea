"""Outages of the issuer, begun at 300 phases of a token's life, through the real holder with a clock moved by hand."""

from collections.abc import Iterator

import pytest
from loguru import logger

from proxy.tokens.sources.base import TokenFetchError
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


def _outages(lifetime_s: float, lasts_s: float, failure: Failure) -> list[Outcome]:
    """The outcome for each phase of the life, from just after the token came to just before it ends."""
    return [
        simulate_outage(
            lifetime_s=lifetime_s,
            age_s=(phase + 0.5) * lifetime_s / PHASES,
            lasts_s=lasts_s,
            failure=failure,
            seed=phase,
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


def test_attempts_and_seconds_without_a_token_are_counted() -> None:
    """The simulation can see what it looks for: an outage that the whole life cannot bridge."""
    outcome = simulate_outage(lifetime_s=300.0, age_s=0.0, lasts_s=1000.0, failure=ANSWERS_503, seed=1)
    assert outcome.attempts > 100
    assert 700 < outcome.without_s < 720
