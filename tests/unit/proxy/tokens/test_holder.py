"""The holder moved by hand: the test plays its thread and calls renew_if_due, so nothing here runs beside."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.tokens.holder import TokenHolder
from proxy.tokens.record import Record, after_failure
from proxy.tokens.sources.base import Grant, Source, TokenFetchError
from proxy.tokens.stores.memory import MemoryStore
from proxy.tokens.token import Token
from tests.support.clock import Clock
from tests.support.token_source import FakeSource

_TIMEOUT = TokenFetchError("no answer")
_BROKEN = TokenFetchError("connection refused", connection=True)
_REFUSED = TokenFetchError("status 401", refused=True)


def _value(holder: TokenHolder) -> str | None:
    token = holder.usable_token()
    return None if token is None else token.value


def test_new_holder_is_empty_and_has_asked_nobody(make_holder) -> None:
    source = FakeSource()
    holder = make_holder(source)
    assert (holder.state(), holder.usable_token(), holder.seconds_to_expiry()) == ("empty", None, None)
    assert source.fetches == 0


@pytest.mark.parametrize(
    ("age_s", "state", "usable"),
    [
        pytest.param(0, "fresh", True, id="at-once"),
        pytest.param(134.999, "fresh", True, id="just-before-renewal"),
        pytest.param(135, "stale", True, id="at-renewal"),
        pytest.param(135.001, "stale", True, id="just-after-renewal"),
        pytest.param(297.999, "stale", True, id="just-before-the-guard"),
        pytest.param(298, "expired", False, id="at-the-guard"),
        pytest.param(298.001, "expired", False, id="just-after-the-guard"),
        pytest.param(301, "expired", False, id="after-expiry"),
    ],
)
def test_token_is_offered_until_the_guard_and_not_after(
    make_holder, clock: Clock, age_s: float, state: str, usable: bool
) -> None:
    holder = make_holder(FakeSource())
    holder.renew_if_due()
    clock.move(age_s)
    assert (holder.state(), holder.usable_token() is not None) == (state, usable)
    assert holder.seconds_to_expiry() == pytest.approx(300 - age_s)


def test_held_token_is_handed_out_without_a_thread_and_without_a_fetch(make_holder, threads_of_holder) -> None:
    source = FakeSource()
    holder = make_holder(source)
    holder.renew_if_due()
    assert holder.token() is holder.token() is holder.usable_token()
    assert (source.fetches, threads_of_holder(holder)) == (1, [])


def test_life_counts_from_before_the_request_was_sent(make_holder, clock: Clock) -> None:
    def slow() -> Grant:
        clock.move(3)
        return Grant("slow", 300.0)

    holder = make_holder(FakeSource(slow))
    holder.renew_if_due()
    assert holder.seconds_to_expiry() == 297


@pytest.mark.parametrize(
    ("age_s", "fetches"),
    [
        pytest.param(134.999, 1, id="just-before-renewal"),
        pytest.param(135, 2, id="at-renewal"),
        pytest.param(135.001, 2, id="just-after-renewal"),
    ],
)
def test_fetch_is_made_from_renewal_on(make_holder, clock: Clock, age_s: float, fetches: int) -> None:
    source = FakeSource()
    holder = make_holder(source)
    assert holder.renew_if_due() == 135
    clock.move(age_s)
    holder.renew_if_due()
    assert source.fetches == fetches


@given(jitters=st.lists(st.floats(0.0, 1.0, exclude_max=True), min_size=40, max_size=40))
def test_an_hour_takes_24_to_30_fetches(jitters: list[float]) -> None:
    clock, source, jitter = Clock(0.0), FakeSource(), iter(jitters)
    holder = TokenHolder("a", source, MemoryStore(), clock=clock, jitter=lambda: next(jitter))
    in_first_hour = 0
    while clock.now <= 3600:
        clock.move(holder.renew_if_due())
        in_first_hour += clock.now <= 3600
    assert 24 <= in_first_hour <= 30


class _Outage(Source):
    """An issuer that fails in one way between two instants, and otherwise gives tokens of 300 s."""

    def __init__(self, clock: Clock, begin: float, end: float, error: TokenFetchError, takes_s: float) -> None:
        self.attempts = 0
        self.recovered = False
        self._clock, self._begin, self._end, self._error, self._takes_s = clock, begin, end, error, takes_s

    def fetch(self) -> Grant:
        if self._begin <= self._clock.now < self._end:
            self.attempts += 1
            self._clock.move(self._takes_s)
            raise self._error
        self.recovered |= self._clock.now >= self._end
        return Grant(f"token-at-{self._clock.now}", 300.0)

    def close(self) -> None:
        pass


@pytest.mark.parametrize("phase_s", [0, 60, 120, 134, 135, 136, 142, 149, 150, 151])
@pytest.mark.parametrize(
    ("jitter", "attempts_most"),
    [
        pytest.param(0.0, 20, id="shortest-pauses"),
        pytest.param(0.5, 20, id="mean"),
        pytest.param(0.999, 20, id="longest"),
    ],
)
@pytest.mark.parametrize(
    ("error", "takes_s"),
    [
        pytest.param(_BROKEN, 0.0, id="refuses"),
        pytest.param(_TIMEOUT, 5.0, id="hangs"),
        pytest.param(TokenFetchError("status 503"), 0.1, id="503"),
        pytest.param(TokenFetchError("status 429", retry_after_s=1e9), 0.1, id="429"),
        pytest.param(_REFUSED, 0.1, id="401"),
    ],
)
def test_outage_of_two_minutes_leaves_no_instant_without_a_token(
    clock: Clock, phase_s: float, jitter: float, attempts_most: int, error: TokenFetchError, takes_s: float
) -> None:
    begin = clock.now + phase_s
    source = _Outage(clock, begin, begin + 120, error, takes_s)
    holder = TokenHolder("a", source, MemoryStore(), clock=clock, jitter=lambda: jitter)
    if phase_s == 0:
        clock.move(-1)
    pause_s = holder.renew_if_due()
    while not source.recovered:
        clock.move(pause_s)
        # A refused credential may wait to the very end of the token; then its caller waits for the fetch.
        assert holder.usable_token() is not None or (error.refused and holder.state() == "expired")
        pause_s = holder.renew_if_due()
        assert pause_s > 0
        assert holder.usable_token() is not None
    assert source.attempts <= attempts_most


@pytest.mark.parametrize(
    ("lifetime_s", "fetches"),
    [
        pytest.param(1.0, 23, id="1-s"),
        pytest.param(0.01, 40, id="10-ms"),
        pytest.param(1e-300, 5, id="none-to-speak-of"),
    ],
)
def test_very_short_lives_are_renewed_without_a_storm(
    make_holder, clock: Clock, lifetime_s: float, fetches: int
) -> None:
    source = FakeSource(*[Grant(f"short-{number}", lifetime_s) for number in range(1000)])
    holder = make_holder(source)
    end = clock.now + 10
    while clock.now < end:
        clock.move(max(holder.renew_if_due(), 1e-6))
    assert source.fetches == pytest.approx(fetches, abs=2)


def test_static_token_is_fetched_once(make_holder, clock: Clock) -> None:
    source = FakeSource(Grant("static", math.inf))
    holder = make_holder(source)
    assert holder.renew_if_due() == math.inf
    clock.move(1e9)
    assert holder.renew_if_due() == math.inf
    assert (source.fetches, holder.state(), holder.seconds_to_expiry()) == (1, "fresh", math.inf)


@pytest.mark.parametrize(
    ("error", "fetches"),
    [
        pytest.param(_BROKEN, 2, id="broken-connection"),
        pytest.param(_TIMEOUT, 1, id="timeout"),
        pytest.param(_REFUSED, 1, id="refused-credentials"),
    ],
)
def test_without_a_token_only_a_broken_connection_is_tried_again_at_once(
    make_holder, error: TokenFetchError, fetches: int
) -> None:
    source = FakeSource(error)
    holder = make_holder(source)
    holder.renew_if_due()
    assert source.fetches == fetches
    assert (holder.usable_token() is not None) == (fetches == 2)


def test_connection_that_breaks_twice_is_one_failed_fetch(make_holder) -> None:
    source = FakeSource(_BROKEN, _BROKEN)
    assert make_holder(source).renew_if_due() == 0.5
    assert source.fetches == 2


def test_with_a_token_in_hand_a_broken_connection_waits_for_the_back_off(make_holder, clock: Clock) -> None:
    source = FakeSource(Grant("first", 300.0), _BROKEN)
    holder = make_holder(source)
    clock.move(holder.renew_if_due())
    assert holder.renew_if_due() == 0.875  # 1 s, jittered by half of a quarter
    assert (source.fetches, _value(holder)) == (2, "first")


def test_token_that_runs_out_during_a_failing_fetch_gets_the_try_at_once(make_holder, clock: Clock) -> None:
    def breaks_late() -> Grant:
        clock.move(4)
        raise _BROKEN

    source = FakeSource(Grant("first", 300.0), breaks_late)
    holder = make_holder(source)
    holder.renew_if_due()
    clock.move(296)
    holder.renew_if_due()
    assert (source.fetches, _value(holder)) == (3, "token-1")


def test_cool_down_without_a_token_grows_from_half_a_second_to_five(make_holder, clock: Clock) -> None:
    source = FakeSource(*[_TIMEOUT] * 6)
    holder = make_holder(source)
    pauses = []
    for _ in range(6):
        pauses.append(holder.renew_if_due())
        clock.move(pauses[-1])
    assert pauses == [0.5, 1, 2, 4, 5, 5]
    assert source.fetches == 6


@pytest.mark.parametrize(
    ("waited_s", "fetches"),
    [pytest.param(0.499, 1, id="just-before"), pytest.param(0.5, 2, id="at-the-end")],
)
def test_no_fetch_is_made_within_the_cool_down(make_holder, clock: Clock, waited_s: float, fetches: int) -> None:
    source = FakeSource(_TIMEOUT)
    holder = make_holder(source)
    holder.renew_if_due()
    clock.move(waited_s)
    holder.renew_if_due()
    assert source.fetches == fetches


def test_failed_renewal_keeps_the_token_in_use_to_its_end(make_holder, clock: Clock) -> None:
    source = FakeSource(Grant("first", 300.0), *[_TIMEOUT] * 1000)
    holder = make_holder(source)
    end = clock.now + 298
    while clock.now < end:
        clock.move(min(holder.renew_if_due(), end - clock.now))
        assert (_value(holder) == "first") == (clock.now < end)


@pytest.mark.parametrize("value", ["first", "other"], ids=["the-same-again", "another-that-ends-no-later"])
def test_token_that_is_no_gain_is_not_asked_for_in_a_loop(make_holder, clock: Clock, value: str) -> None:
    source = FakeSource(Grant("first", 300.0), *[Grant(value, 1.0)] * 100)
    holder = make_holder(source)
    clock.move(holder.renew_if_due())
    pauses = []
    while clock.now < 1_290:
        assert _value(holder) == "first"
        pauses.append(holder.renew_if_due())
        clock.move(pauses[-1])
    assert min(pauses[:-1]) >= 10
    assert pauses[0] == (300 - 135 - 2) / 4


@pytest.mark.parametrize(
    "error", [UnicodeEncodeError("utf-8", "s3cret-mark\udcff", 0, 1, "surrogates"), OSError("s3cret-mark"), KeyError()]
)
def test_unexpected_error_of_a_source_is_a_failed_fetch_like_any_other(make_holder, logs, error: Exception) -> None:
    source = FakeSource(error, error)
    holder = make_holder(source)
    assert holder.renew_if_due() == 0.5
    assert holder.renew_if_due() == 0.5
    assert source.fetches == 1
    assert type(error).__name__ in "".join(logs)


def test_refused_credentials_are_one_error_line_per_change(make_holder, clock: Clock, logs) -> None:
    source = FakeSource(_REFUSED, _REFUSED, _REFUSED, TokenFetchError("status 403", refused=True), _REFUSED)
    holder = make_holder(source)
    for _ in range(5):
        clock.move(holder.renew_if_due())
    assert [line.rpartition(" ")[2].strip() for line in logs if line.startswith("ERROR")] == ["401", "403", "401"]
    holder.renew_if_due()
    source.answer(_REFUSED)
    clock.move(135)
    holder.renew_if_due()
    assert sum(line.startswith("ERROR") for line in logs) == 4


def test_other_failures_are_warnings(make_holder, logs) -> None:
    make_holder(FakeSource(_TIMEOUT)).renew_if_due()
    assert logs == ["WARNING token source source-0: no answer\n"]


def test_log_and_repr_show_a_fingerprint_and_never_a_token(make_holder, clock: Clock, logs, mark: str) -> None:
    holder = make_holder(FakeSource(Grant(mark, 300.0), _REFUSED))
    clock.move(holder.renew_if_due())
    holder.renew_if_due()
    token = holder.token()
    assert token.value == mark
    assert mark not in repr(holder) + repr(token) + repr(vars(holder))
    assert token.fingerprint in logs[0]


class _BusyStore(MemoryStore):
    """A store whose lock another holder has, who may publish before giving it back."""

    def __init__(self, *, busy: bool, publishes: Record | None = None) -> None:
        super().__init__()
        self.busy = busy
        self.tries = 0
        self._publishes = publishes

    @contextmanager
    def try_lock(self) -> Iterator[bool]:
        self.tries += 1
        if self._publishes is not None:
            self.save(self._publishes)
        yield not self.busy


def test_lost_lock_fetches_nothing_and_comes_back_soon(make_holder) -> None:
    source, store = FakeSource(), _BusyStore(busy=True)
    holder = make_holder(source, store)
    assert holder.renew_if_due() == 0.25
    assert source.fetches == 0
    store.busy = False
    holder.renew_if_due()
    assert source.fetches == 1


@pytest.mark.parametrize("published", ["token", "cool-down"])
def test_winner_of_the_lock_looks_again_before_it_fetches(make_holder, clock: Clock, published: str) -> None:
    token = Token("theirs", fetched_at=clock.now, lifetime_s=300.0, generation=1)
    record = replace(Record(), token=token, generation=1)
    if published == "cool-down":
        record = after_failure(Record(), _TIMEOUT, now=clock.now, jitter=0.0)
    source = FakeSource()
    holder = make_holder(source, _BusyStore(busy=False, publishes=record))
    assert holder.renew_if_due() == (150 if published == "token" else 0.5)
    assert (source.fetches, _value(holder)) == (0, "theirs" if published == "token" else None)


def test_second_holder_of_a_store_uses_the_token_of_the_first(make_holder) -> None:
    store, first, second = MemoryStore(), FakeSource(), FakeSource()
    one, two = make_holder(first, store), make_holder(second, store)
    one.renew_if_due()
    assert two.renew_if_due() == 135
    assert two.token() is one.token()
    assert second.fetches == 0
