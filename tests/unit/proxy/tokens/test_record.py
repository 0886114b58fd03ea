import math
import pickle
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.tokens.record import Failures, Record, after_failure, after_grant, after_refusal
from proxy.tokens.sources.base import Grant, TokenFetchError

_NOW = 1_000.0
_TIMEOUT = TokenFetchError("no answer")
_REFUSED = TokenFetchError("status 401", refused=True)


def _granted(
    record: Record,
    value: str = "token-1",
    lifetime_s: float = 300.0,
    *,
    now: float = _NOW,
    took_s: float = 0.0,
    forced: bool = False,
) -> Record:
    grant = Grant(value, lifetime_s)
    return after_grant(record, grant, fetched_at=now - took_s, now=now, jitter=0.0, forced=forced)


def _failed(record: Record, error: TokenFetchError = _TIMEOUT, *, now: float, jitter: float = 1.0) -> Record:
    return after_failure(record, error, now=now, jitter=jitter)


def _value(record: Record, now: float) -> str | None:
    token = record.usable_token(now)
    return None if token is None else token.value


def test_empty_record_is_due_at_once_and_not_cooling_down() -> None:
    assert Record().due_at(_NOW) <= _NOW
    assert Record().usable_token(_NOW) is None
    assert not Record().cooling_down(_NOW)


def test_granted_token_counts_from_before_the_request() -> None:
    token = _granted(Record(), took_s=3.0).token
    assert token is not None
    assert (token.fetched_at, token.expires_at, token.generation) == (_NOW - 3, _NOW + 297, 1)


@pytest.mark.parametrize(
    ("age_s", "usable"),
    [
        pytest.param(297.999, True, id="just-before-the-guard"),
        pytest.param(298.0, False, id="at-the-guard"),
        pytest.param(298.001, False, id="just-after-the-guard"),
    ],
)
def test_token_is_usable_until_the_guard(age_s: float, usable: bool) -> None:
    assert (_granted(Record()).usable_token(_NOW + age_s) is not None) == usable


def test_fetch_is_due_at_renewal_and_once_the_token_has_run_out() -> None:
    record = _granted(Record())
    assert record.due_at(_NOW) == _NOW + 150
    assert record.due_at(_NOW + 298) <= _NOW + 298


@pytest.mark.parametrize(
    ("value", "lifetime_s", "forced", "adopted"),
    [
        pytest.param("token-2", 151.0, False, True, id="another-that-ends-later"),
        pytest.param("token-2", 150.0, False, False, id="another-that-ends-at-the-same-instant"),
        pytest.param("token-2", 149.0, False, False, id="another-that-ends-earlier"),
        pytest.param("token-1", 150.0, False, False, id="the-same-again"),
        pytest.param("token-1", 300.0, False, False, id="the-same-with-a-later-end"),
        pytest.param("token-2", 149.0, True, True, id="refused-and-another-that-ends-earlier"),
        pytest.param("token-1", 300.0, True, False, id="refused-and-the-same-again"),
    ],
)
def test_new_token_replaces_a_usable_one_only_where_it_is_a_gain(
    value: str, lifetime_s: float, forced: bool, adopted: bool
) -> None:
    renewed = _granted(_granted(Record()), value, lifetime_s, now=_NOW + 150, forced=forced)
    assert renewed.generation == (2 if adopted else 1)
    assert _value(renewed, _NOW + 150) == (value if adopted else "token-1")


def test_same_token_replaces_one_that_has_run_out() -> None:
    renewed = _granted(_granted(Record()), "token-1", 300.0, now=_NOW + 298)
    assert (_value(renewed, _NOW + 298), renewed.generation) == ("token-1", 2)


@pytest.mark.parametrize(
    ("age_s", "due_in_s"),
    [
        pytest.param(150.0, 37.0, id="a-quarter-of-what-is-left"),
        pytest.param(258.0, 10.0, id="ten-seconds"),
        pytest.param(288.0, 10.0, id="ten-seconds-left"),
        pytest.param(288.5, 9.5, id="less-than-ten-seconds-left"),
    ],
)
def test_token_that_is_no_gain_is_asked_for_again_later_but_not_after_the_end(age_s: float, due_in_s: float) -> None:
    now = _NOW + age_s
    assert _granted(_granted(Record()), now=now).due_at(now) == now + due_in_s


@pytest.mark.parametrize(
    ("lifetime_s", "took_s", "usable"),
    [
        pytest.param(1.0, 0.749, True, id="just-before-the-guard"),
        pytest.param(1.0, 0.75, False, id="at-the-guard"),
        pytest.param(1e-300, 0.0, False, id="a-life-that-no-clock-can-tell"),
    ],
)
def test_token_that_has_run_out_on_arrival_is_a_failed_fetch(lifetime_s: float, took_s: float, usable: bool) -> None:
    if usable:
        assert _value(_granted(Record(), lifetime_s=lifetime_s, took_s=took_s), _NOW) == "token-1"
    else:
        with pytest.raises(TokenFetchError, match="run out"):
            _granted(Record(), lifetime_s=lifetime_s, took_s=took_s)


@pytest.mark.parametrize("lifetime_s", [0.001, 0.01, 0.1, 0.5])
def test_however_short_lives_are_fetches_begin_a_quarter_second_apart(lifetime_s: float) -> None:
    record = _granted(Record(), lifetime_s=lifetime_s)
    instants = [_NOW + step / 1000 for step in range(250)]
    assert all(record.due_at(now) >= _NOW + 0.25 - 1e-9 for now in instants)


def test_token_of_one_second_is_renewed_at_half_its_life() -> None:
    assert _granted(Record(), lifetime_s=1.0).due_at(_NOW) == _NOW + 0.5


def test_grant_ends_back_off_and_cool_down() -> None:
    record = _granted(_failed(_failed(Record(), _REFUSED, now=_NOW), now=_NOW), now=_NOW)
    assert (record.failures, record.refusals) == (0, 0)
    assert not record.cooling_down(_NOW)


def _pauses(record: Record, error: TokenFetchError, now: float, count: int) -> list[float]:
    """The pauses after so many failures, each at the instant at which the try was due."""
    pauses = []
    for _ in range(count):
        record = _failed(record, error, now=now)
        pauses.append(record.due_at(now) - now)
        now = record.due_at(now)
    return pauses


def test_failures_are_those_since_the_last_good_fetch_and_of_the_last_ones_kind() -> None:
    record = _failed(_failed(Record(), _TIMEOUT, now=_NOW), _REFUSED, now=_NOW + 1)
    assert _failed(record, now=_NOW + 60).failures_at(_NOW + 60) == Failures(3, "failed", next_try_s=2)
    left_s = record.retry_at - _NOW - 1
    assert record.failures_at(_NOW + 1) == Failures(2, "refused", next_try_s=math.ceil(left_s))
    assert record.failures_at(record.retry_at + 100) == Failures(2, "refused", next_try_s=0)
    assert _granted(record, now=_NOW + 60).failures_at(_NOW + 60) is None


@pytest.mark.parametrize(
    ("record", "age_s", "error", "pauses"),
    [
        pytest.param(_granted(Record()), 150, _TIMEOUT, [1, 2, 4, 8, 10, 10], id="stale"),
        pytest.param(Record(), 0, _TIMEOUT, [0.5, 1, 2, 4, 5, 5], id="empty"),
        pytest.param(Record(), 0, _REFUSED, [30, 60, 120, 240, 300, 300], id="empty-and-refused"),
        pytest.param(_granted(Record()), 150, _REFUSED, [30, 60, 58, 240, 300], id="stale-and-refused"),
        pytest.param(_granted(Record()), 290, _TIMEOUT, [1, 2, 4, 1, 5, 5], id="last-seconds-and-then-expired"),
    ],
)
def test_failures_in_a_row_are_put_off_longer_but_not_past_the_end_of_the_token(
    record: Record, age_s: float, error: TokenFetchError, pauses: list[float]
) -> None:
    assert _pauses(record, error, _NOW + age_s, len(pauses)) == pytest.approx(pauses)


def test_another_kind_of_failure_ends_the_row_of_refusals() -> None:
    record = _failed(_failed(_failed(Record(), _REFUSED, now=_NOW), _REFUSED, now=_NOW), now=_NOW)
    assert _failed(record, _REFUSED, now=_NOW).retry_at == _NOW + 30


def test_failed_fetch_keeps_the_token() -> None:
    assert _value(_failed(_granted(Record()), _REFUSED, now=_NOW + 150), _NOW + 297) == "token-1"


@pytest.mark.parametrize(
    ("record", "retry_after_s", "pause_s"),
    [
        pytest.param(Record(), 0.0, 0.5, id="empty-less-than-the-cool-down"),
        pytest.param(Record(), 7.0, 7.0, id="empty-more-than-the-cool-down"),
        pytest.param(Record(), 1e9, 60.0, id="empty-capped"),
        pytest.param(_granted(Record()), 0.0, 1.0, id="stale-less-than-the-back-off"),
        pytest.param(_granted(Record()), 7.0, 7.0, id="stale-more-than-the-back-off"),
        pytest.param(_granted(Record()), 1e9, 60.0, id="stale-capped"),
        pytest.param(_granted(Record(), lifetime_s=200.0), 1e9, 24.0, id="stale-half-of-what-is-left"),
    ],
)
def test_retry_after_stretches_the_pause(record: Record, retry_after_s: float, pause_s: float) -> None:
    now = _NOW if record.token is None else _NOW + 150
    error = TokenFetchError("status 429", retry_after_s=retry_after_s)
    assert _failed(record, error, now=now).retry_at == now + pause_s


@pytest.mark.parametrize(
    ("after_s", "cooling"),
    [pytest.param(0.499, True, id="just-before"), pytest.param(0.5, False, id="at-the-end")],
)
def test_cool_down_ends_at_the_next_try(after_s: float, cooling: bool) -> None:
    assert _failed(Record(), now=_NOW).cooling_down(_NOW + after_s) == cooling


def _forced_at(record: Record, *ages_s: float) -> list[bool]:
    """Whether a fetch was allowed at each of these ages, after which every one brought a new token."""
    allowed = []
    for age_s in ages_s:
        record, allows = after_refusal(record, now=_NOW + age_s)
        allowed.append(allows)
        if allows:
            record = _granted(record, f"token-{age_s}", now=_NOW + age_s, forced=True)
    return allowed


@pytest.mark.parametrize(
    ("ages_s", "allowed"),
    [
        pytest.param([0], [True], id="first"),
        pytest.param([0, 4.999], [True, False], id="second-just-before-5-s"),
        pytest.param([0, 5], [True, True], id="second-at-5-s"),
        pytest.param([0, 4.999, 5], [True, False, True], id="one-that-was-not-allowed-does-not-count"),
        pytest.param([0, 5, 10, 15], [True, True, True, False], id="fourth-in-the-window"),
        pytest.param([0, 5, 10, 59.999], [True, True, True, False], id="fourth-just-before-60-s"),
        pytest.param([0, 5, 10, 60], [True, True, True, True], id="fourth-at-60-s"),
        pytest.param([0, 5, 10, 55, 60], [True, True, True, False, False], id="breaker-opened-at-55-s-still-open"),
        pytest.param([0, 5, 10, 55, 84.999], [True, True, True, False, False], id="just-before-the-breaker-ends"),
        pytest.param([0, 5, 10, 55, 85], [True, True, True, False, True], id="breaker-ends-after-30-s"),
    ],
)
def test_forced_fetches_come_5_s_apart_and_three_a_minute(ages_s: list[float], allowed: list[bool]) -> None:
    assert _forced_at(Record(), *ages_s) == allowed


def test_breaker_that_ends_within_the_minute_does_not_open_again_before_another_fetch() -> None:
    # Opened at 15 s for 30 s; at 45 s the three of 0, 5 and 10 s still fill the window, which is no new offence.
    assert _forced_at(Record(), 0, 5, 10, 15, 45, 59, 60) == [True, True, True, False, False, False, True]


def _breaker_spans(record: Record, count: int, calm_s: float = 0.0) -> list[float]:
    """How long the breaker opens each time, under an upstream that refuses every token twice a second."""
    spans, now = [], _NOW
    while len(spans) < count:
        until = record.breaker_until
        record, _ = after_refusal(record, now=now)
        if record.breaker_until != until:
            spans.append(record.breaker_s)
            now = record.breaker_until + calm_s
        now += 0.5
    return spans


def test_breaker_opens_for_30_s_and_doubles_to_300() -> None:
    assert _breaker_spans(Record(), 6) == [30, 60, 120, 240, 300, 300]


def test_breaker_starts_anew_after_a_calm_time() -> None:
    assert _breaker_spans(Record(), 3, calm_s=600.0) == [30, 30, 30]


def test_no_fetch_is_forced_while_a_failed_one_cools_down() -> None:
    record = _failed(_granted(Record()), now=_NOW)
    assert after_refusal(record, now=_NOW + 0.999) == (record, False)
    assert after_refusal(record, now=_NOW + 1)[1]


def test_printed_record_and_grant_hold_no_token(mark: str) -> None:
    record = _granted(Record(), mark)
    assert mark not in repr(record) + repr(Grant(mark, 300.0))
    with pytest.raises(TypeError):
        pickle.dumps(record)


_LIFETIMES = st.sampled_from([0.01, 1.0, 4.0, 60.0, 300.0, 3600.0, math.inf]) | st.floats(1.0, 30 * 86_400.0)
_ERRORS = st.builds(
    lambda refused, retry_after_s: TokenFetchError("x", refused=refused, retry_after_s=retry_after_s),
    st.booleans(),
    st.none() | st.sampled_from([0.0, 5.0, 1e9]),
)
_OUTCOMES = st.builds(Grant, st.sampled_from(["a", "b", "c"]), _LIFETIMES) | _ERRORS
_STEPS = st.tuples(
    st.sampled_from(["wait", "wait-until-due", "fetch", "refusal"]),
    # Seconds waited, or of the fetch; a suspended host wakes days later.
    st.floats(0.0, 400.0) | st.floats(0.0, 6.0) | st.floats(0.0, 40 * 86_400.0),
    _OUTCOMES,
    st.floats(0.0, 1.0, exclude_max=True),  # jitter
)


class _History:
    """Moves a record as a holder does and checks after each step what must hold after any."""

    def __init__(self) -> None:
        self.record = Record()
        self.now = _NOW
        self.forced_at: list[float] = []

    def step(self, kind: str, seconds: float, outcome: Grant | TokenFetchError, jitter: float) -> None:
        if kind == "wait":
            self.now += seconds
        elif kind == "wait-until-due":
            due_at = self.record.due_at(self.now)
            self.now = self.now if math.isinf(due_at) else max(self.now, due_at)
        elif kind == "refusal":
            self.record, allowed = after_refusal(self.record, now=self.now)
            if allowed:
                self.forced_at.append(self.now)
                self._fetch(seconds, outcome, jitter, forced=True)
        elif self.record.due_at(self.now) <= self.now:
            self._fetch(seconds, outcome, jitter, forced=False)
        self._check()

    def _fetch(self, seconds: float, outcome: Grant | TokenFetchError, jitter: float, *, forced: bool) -> None:
        fetched_at, before = self.now, self.record
        self.now += min(seconds, 5.0)
        try:
            if isinstance(outcome, TokenFetchError):
                raise outcome
            self.record = after_grant(
                before, outcome, fetched_at=fetched_at, now=self.now, jitter=jitter, forced=forced
            )
            assert self.record.usable_token(self.now) is not None
            assert self.record.due_at(self.now) > fetched_at
        except TokenFetchError as error:
            self.record = after_failure(before, error, now=self.now, jitter=jitter)
            assert self.record.token is before.token
            assert self.record.retry_at > self.now
            assert self.record.due_at(self.now) > self.now
            assert self.record.cooling_down(self.now)
        assert self.record.generation >= before.generation

    def _check(self) -> None:
        token = self.record.usable_token(self.now)
        assert token is None or self.now < token.usable_until < token.expires_at or token.expires_at == math.inf
        for at in self.forced_at:
            assert sum(at <= other < at + 60.0 for other in self.forced_at) <= 3
        assert all(later - at >= 5.0 for at, later in zip(self.forced_at, self.forced_at[1:], strict=False))
        assert len(self.record.forced_at) <= 3
        assert self.record.retry_at <= self.now + 300.0 or self.record.token is not None


@given(steps=st.lists(_STEPS, max_size=40))
def test_any_history_keeps_the_budget_and_never_offers_a_token_that_has_run_out(
    steps: list[tuple[str, float, Grant | TokenFetchError, float]],
) -> None:
    history = _History()
    for step in steps:
        history.step(*step)


_REFUSE_ALL: list[Callable[[Record, float], Record]] = [
    lambda record, now: _granted(record, f"token-{now}", now=now, forced=True),
    lambda record, now: _failed(record, now=now),
]


@pytest.mark.parametrize("outcome", _REFUSE_ALL, ids=["each-fetch-brings-a-token", "each-fetch-fails"])
@given(gaps_s=st.lists(st.floats(0.0, 20.0), min_size=20, max_size=80))
def test_upstream_that_refuses_all_gets_three_forced_fetches_a_minute(
    outcome: Callable[[Record, float], Record], gaps_s: list[float]
) -> None:
    record, now, forced_at = Record(), _NOW, list[float]()
    for gap_s in gaps_s:
        now += gap_s
        record, allowed = after_refusal(record, now=now)
        if allowed:
            forced_at.append(now)
            record = outcome(record, now)
    for at in forced_at:
        assert sum(at <= other < at + 60.0 for other in forced_at) <= 3
