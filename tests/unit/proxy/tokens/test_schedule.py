import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.tokens import schedule

_LIFETIMES = st.floats(min_value=1.0, max_value=30 * 86_400.0)
_JITTERS = st.floats(min_value=0.0, max_value=1.0, exclude_max=True)


@pytest.mark.parametrize(
    ("lifetime_s", "guard_s"),
    [
        pytest.param(1.0, 0.25, id="1-s-a-quarter"),
        pytest.param(7.999, 1.99975, id="just-below-8-s-a-quarter"),
        pytest.param(8.0, 2.0, id="8-s-both-rules-agree"),
        pytest.param(8.001, 2.0, id="just-above-8-s"),
        pytest.param(300.0, 2.0, id="300-s"),
        pytest.param(math.inf, 2.0, id="never-expires"),
    ],
)
def test_guard_is_two_seconds_or_a_quarter_of_a_life_below_eight(lifetime_s: float, guard_s: float) -> None:
    assert schedule.guard_s(lifetime_s) == pytest.approx(guard_s)


@pytest.mark.parametrize(
    ("lifetime_s", "margin_s"),
    [
        pytest.param(1.0, 2.0, id="floor"),
        pytest.param(40.0, 2.0, id="end-of-the-floor"),
        pytest.param(41.0, 2.05, id="just-above-the-floor"),
        pytest.param(300.0, 15.0, id="300-s"),
        pytest.param(599.0, 29.95, id="just-below-the-cap"),
        pytest.param(600.0, 30.0, id="begin-of-the-cap"),
        pytest.param(86_400.0, 30.0, id="cap"),
    ],
)
def test_margin_is_a_twentieth_of_the_life_between_2_and_30_seconds(lifetime_s: float, margin_s: float) -> None:
    assert schedule.margin_s(lifetime_s) == pytest.approx(margin_s)


@pytest.mark.parametrize(
    ("lifetime_s", "lead_s"),
    [
        pytest.param(1.0, 0.5, id="1-s-half"),
        pytest.param(60.0, 30.0, id="a-minute-half"),
        pytest.param(300.0, 150.0, id="300-s-the-outage-just-fits-in-half"),
        pytest.param(310.0, 150.5, id="310-s-the-outage"),
        pytest.param(825.0, 165.0, id="825-s-both-rules-agree"),
        pytest.param(3600.0, 720.0, id="an-hour-a-fifth"),
    ],
)
def test_lead_is_half_the_life_or_the_outage_or_a_fifth(lifetime_s: float, lead_s: float) -> None:
    assert schedule.lead_s(lifetime_s) == pytest.approx(lead_s)


def test_token_that_never_expires_is_never_renewed() -> None:
    assert schedule.renewal_age_s(math.inf, 0.5) == math.inf


@given(lifetime_s=_LIFETIMES, jitter=_JITTERS)
def test_renewal_is_due_within_the_life_and_before_the_guard(lifetime_s: float, jitter: float) -> None:
    assert 0 < schedule.guard_s(lifetime_s) < lifetime_s
    assert 0 < schedule.renewal_age_s(lifetime_s, jitter) < lifetime_s - schedule.guard_s(lifetime_s)


@given(jitter=_JITTERS)
def test_token_of_300_s_is_renewed_at_an_age_of_120_to_150_s(jitter: float) -> None:
    assert 120 <= schedule.renewal_age_s(300.0, jitter) <= 150
    assert 24 <= 3600 / schedule.renewal_age_s(300.0, jitter) <= 30


@given(lifetime_s=st.floats(min_value=300.0, max_value=30 * 86_400.0), jitter=_JITTERS)
def test_outage_a_retry_and_a_fetch_fit_between_renewal_and_margin(lifetime_s: float, jitter: float) -> None:
    left_s = lifetime_s - schedule.renewal_age_s(lifetime_s, jitter)
    rides_out_s = schedule.OUTAGE_S + schedule.RETRY_CAP_S + schedule.FETCH_DEADLINE_S
    assert left_s - schedule.margin_s(lifetime_s) >= rides_out_s * (1 - 1e-9)


@pytest.mark.parametrize(
    ("pause_s", "expected"),
    [
        pytest.param(lambda n: schedule.stale_retry_s(n, 1.0), [1, 2, 4, 8, 10, 10], id="stale-latest"),
        pytest.param(lambda n: schedule.stale_retry_s(n, 0.0), [0.75, 1.5, 3, 6, 7.5, 7.5], id="stale-earliest"),
        pytest.param(schedule.cool_down_s, [0.5, 1, 2, 4, 5, 5], id="cool-down"),
        pytest.param(schedule.refused_cool_down_s, [30, 60, 120, 240, 300, 300], id="refused-credentials"),
    ],
)
def test_pauses_double_up_to_their_cap(pause_s, expected: list[float]) -> None:
    assert [pause_s(count) for count in range(1, 7)] == expected
    assert pause_s(100_000) == expected[-1]


@pytest.mark.parametrize(
    ("asked_s", "left_s", "obeyed_s"),
    [
        pytest.param(0.0, 0.0, 0.0, id="nothing-asked"),
        pytest.param(-5.0, 0.0, 0.0, id="below-zero"),
        pytest.param(59.9, 0.0, 59.9, id="no-token-just-below-the-cap"),
        pytest.param(60.0, 0.0, 60.0, id="no-token-at-the-cap"),
        pytest.param(60.1, 0.0, 60.0, id="no-token-just-above-the-cap"),
        pytest.param(1e9, 0.0, 60.0, id="no-token-far-above-the-cap"),
        pytest.param(24.9, 50.0, 24.9, id="just-below-half-of-what-is-left"),
        pytest.param(25.0, 50.0, 25.0, id="half-of-what-is-left"),
        pytest.param(25.1, 50.0, 25.0, id="just-above-half-of-what-is-left"),
        pytest.param(1e9, 148.0, 60.0, id="long-life-far-above-the-cap"),
        pytest.param(1e9, math.inf, 60.0, id="never-expires"),
    ],
)
def test_retry_after_is_obeyed_to_60_s_and_half_of_what_is_left(asked_s: float, left_s: float, obeyed_s: float) -> None:
    assert schedule.obeyed_retry_after_s(asked_s, left_s) == obeyed_s


@pytest.mark.parametrize(
    ("left_s", "pause_s"),
    [
        pytest.param(1.0, 10.0, id="almost-over"),
        pytest.param(39.9, 10.0, id="just-below-40-s"),
        pytest.param(40.0, 10.0, id="40-s"),
        pytest.param(41.0, 10.25, id="just-above-40-s"),
        pytest.param(148.0, 37.0, id="half-a-life"),
    ],
)
def test_same_token_is_asked_for_again_after_a_quarter_of_what_is_left(left_s: float, pause_s: float) -> None:
    assert schedule.ask_again_s(left_s) == pause_s


def test_breaker_stays_open_for_30_s_doubling_to_300() -> None:
    spans = itertools.accumulate(range(5), lambda span_s, _: schedule.breaker_s(span_s), initial=schedule.breaker_s(0))
    assert list(spans) == [30, 60, 120, 240, 300, 300]
