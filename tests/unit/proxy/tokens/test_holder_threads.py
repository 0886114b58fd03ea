"""The holder with its thread: who waits, who fetches, and how it ends."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from proxy.errors import TokenUnavailable
from proxy.tokens import holder as holder_module
from proxy.tokens import schedule
from proxy.tokens.sources.base import Grant, TokenFetchError
from proxy.tokens.stores.memory import MemoryStore
from tests.support.clock import Clock
from tests.support.token_source import FakeSource

_TIMEOUT = TokenFetchError("no answer")
_BROKEN = TokenFetchError("connection refused", connection=True)
_REFUSED = TokenFetchError("status 401", refused=True)


@pytest.mark.parametrize("count", [1, 32])
def test_all_who_find_no_token_wait_for_one_fetch(make_holder, callers, await_waiting, count: int) -> None:
    source = FakeSource()
    source.hold()
    holder = make_holder(source)
    waiting = callers(count, holder.token)
    await_waiting(holder, count)
    source.let_go()
    assert [token.value for token in waiting.outcomes()] == ["token-1"] * count
    assert source.fetches == 1


def test_all_who_find_the_token_expired_wait_for_one_fetch(make_holder, callers, await_waiting, clock: Clock) -> None:
    source = FakeSource()
    holder = make_holder(source)
    holder.token()
    await_waiting(holder, 1)
    clock.move(298)
    source.hold()
    waiting = callers(16, holder.token)
    await_waiting(holder, 16)
    source.let_go()
    assert {token.value for token in waiting.outcomes()} == {"token-2"}
    assert source.fetches == 2


@pytest.mark.parametrize(
    ("answers", "fetches"),
    [
        pytest.param([_TIMEOUT], 1, id="timeout"),
        pytest.param([_REFUSED], 1, id="refused-credentials"),
        pytest.param([_BROKEN, _BROKEN], 2, id="connection-broken-twice"),
        pytest.param([RuntimeError("a bug")], 1, id="unexpected-error"),
        pytest.param([Grant("gone", 1e-300)], 1, id="expired-on-arrival"),
    ],
)
def test_failed_fetch_fails_all_who_wait_together(
    make_holder, callers, await_waiting, answers: list[Grant | Exception], fetches: int
) -> None:
    source = FakeSource(*answers)
    source.hold()
    holder = make_holder(source)
    waiting = callers(20, holder.token)
    await_waiting(holder, 20)
    source.let_go()
    assert {type(outcome) for outcome in waiting.outcomes()} == {TokenUnavailable}
    assert source.fetches == fetches


def test_failed_fetch_fails_those_who_wake_up_after_its_cool_down_too(
    make_holder, callers, await_waiting, clock: Clock, monkeypatch
) -> None:
    source = FakeSource(_TIMEOUT)
    source.hold()
    holder = make_holder(source)

    def let_the_cool_down_pass() -> float:
        source.hold()
        clock.move(0.5)
        return 0.5

    monkeypatch.setattr(holder._renewal, "_jitter", let_the_cool_down_pass)  # called once the failure has its instant
    waiting = callers(8, holder.token)
    await_waiting(holder, 8)
    source.let_go()
    assert {type(outcome) for outcome in waiting.outcomes()} == {TokenUnavailable}
    source.let_go()


def test_requests_in_the_cool_down_fail_at_once_without_a_call(make_holder, callers) -> None:
    source = FakeSource(_REFUSED)
    holder = make_holder(source)
    for outcome in callers(50, holder.token).outcomes() + callers(50, holder.token).outcomes():
        assert isinstance(outcome, TokenUnavailable)
        assert (outcome.status, outcome.retry_after_s) == (503, 30.0)
    assert source.fetches == 1


def test_retry_after_is_never_below_a_second(make_holder) -> None:
    with pytest.raises(TokenUnavailable) as caught:
        make_holder(FakeSource(_TIMEOUT)).token()
    assert caught.value.retry_after_s == 1.0


def test_first_request_after_the_cool_down_is_served(make_holder, clock: Clock) -> None:
    source = FakeSource(_TIMEOUT)
    holder = make_holder(source)
    for move_s in (0, 0.499):
        clock.move(move_s)
        with pytest.raises(TokenUnavailable):
            holder.token()
    clock.move(0.001)
    assert holder.token().value == "token-1"
    assert source.fetches == 2


def test_fetches_run_in_the_holders_own_thread(make_holder, threads_of_holder) -> None:
    source = FakeSource()
    holder = make_holder(source)
    holder.token()
    assert list(source.fetchers) == threads_of_holder(holder)


def test_stale_token_is_used_while_the_renewal_hangs(
    make_holder, callers, await_waiting, begin_renewal, clock: Clock
) -> None:
    source = FakeSource(Grant("first", 300.0), Grant("second", 3600.0))
    holder = make_holder(source)
    held = holder.token()
    source.await_fetch()
    source.hold()
    begin_renewal(holder, 135)
    source.await_fetch()
    assert {token.value for token in callers(16, holder.token).outcomes()} == {held.value}
    clock.move(162.999)
    assert holder.token() is held
    source.let_go()
    await_waiting(holder, 1)
    assert (holder.token().value, source.fetches) == ("second", 2)


def test_request_that_expires_in_a_failing_renewal_shares_its_outcome(
    make_holder, callers, await_waiting, begin_renewal, clock: Clock
) -> None:
    source = FakeSource(Grant("first", 300.0), _TIMEOUT)
    holder = make_holder(source)
    holder.token()
    source.await_fetch()
    source.hold()
    begin_renewal(holder, 297)
    source.await_fetch()
    clock.move(2)
    waiting = callers(8, holder.token)
    await_waiting(holder, 8)
    source.let_go()
    assert {type(outcome) for outcome in waiting.outcomes()} == {TokenUnavailable}
    assert source.fetches == 2


@pytest.mark.parametrize("count", [3, 4, 6])
def test_no_more_than_the_limit_wait(make_holder, callers, await_waiting, monkeypatch, count: int) -> None:
    monkeypatch.setattr(holder_module, "WAITERS_MOST", 3)
    source = FakeSource()
    source.hold()
    holder = make_holder(source)
    waiting = callers(3, holder.token)
    await_waiting(holder, 3)
    for _ in range(count - 3):
        with pytest.raises(TokenUnavailable):
            holder.token()
    source.let_go()
    assert {token.value for token in waiting.outcomes()} == {"token-1"}
    assert holder.token().value == "token-1"


def test_place_of_one_who_waited_is_free_again(make_holder, callers, monkeypatch, clock: Clock) -> None:
    monkeypatch.setattr(holder_module, "WAITERS_MOST", 1)
    source = FakeSource(_TIMEOUT)
    holder = make_holder(source)
    with pytest.raises(TokenUnavailable):
        holder.token()
    clock.move(1)
    assert holder.token().value == "token-1"


@pytest.mark.parametrize(
    ("moved_s", "gives_up"),
    [pytest.param(5.999, False, id="just-before-6-s"), pytest.param(6.0, True, id="at-6-s")],
)
def test_request_waits_for_a_fetch_at_most_six_seconds(
    make_holder, callers, await_waiting, wake, clock: Clock, moved_s: float, gives_up: bool
) -> None:
    source = FakeSource()
    source.hold()
    holder = make_holder(source)
    first = callers(1, holder.token)
    source.await_fetch()
    await_waiting(holder, 1)
    clock.move(moved_s)
    second = callers(1, holder.token)
    await_waiting(holder, 2)
    wake(holder)
    if gives_up:
        assert isinstance(first.outcomes()[0], TokenUnavailable)
    else:
        await_waiting(holder, 2)
    source.let_go()
    assert second.outcomes()[0].value == "token-1"
    assert isinstance(first.outcomes()[0], TokenUnavailable) == gives_up
    assert source.fetches == 1


def test_host_that_slept_past_the_expiry_fetches_for_the_first_request(make_holder, clock: Clock) -> None:
    source = FakeSource()
    holder = make_holder(source)
    holder.token()
    clock.move(86_400)  # the thread's timer has not moved
    assert holder.token().value == "token-2"
    assert source.fetches == 2


def test_request_that_comes_just_before_the_thread_falls_asleep_wakes_it(
    make_holder, callers, await_waiting, clock: Clock, monkeypatch
) -> None:
    source = FakeSource()
    holder = make_holder(source)
    decided, may_sleep = threading.Event(), threading.Event()
    renew_if_due = holder.renew_if_due

    def renew_and_linger() -> float:
        pause_s = renew_if_due()
        decided.set()
        assert may_sleep.wait(10)
        return float(pause_s)

    monkeypatch.setattr(holder, "renew_if_due", renew_and_linger)
    holder.token()
    assert decided.wait(10)
    clock.move(298)  # as a suspended host does
    waiting = callers(1, holder.token)
    await_waiting(holder, 1)
    may_sleep.set()
    assert waiting.outcomes()[0].value == "token-2"


def test_thread_is_started_once(make_holder, callers, threads_of_holder) -> None:
    holder = make_holder(FakeSource())
    callers(16, holder.start).outcomes()
    assert len(threads_of_holder(holder)) == 1


def test_start_fetches_without_a_request(make_holder) -> None:
    source = FakeSource()
    make_holder(source).start()
    source.await_fetch()


def test_started_holder_adopts_a_stored_token_and_fetches_nothing(make_holder, clock: Clock) -> None:
    store = MemoryStore()
    make_holder(FakeSource(), store).renew_if_due()
    source = FakeSource()
    assert make_holder(source, store).token().value == "token-1"
    assert source.fetches == 0


def test_close_tells_waiting_requests_at_once(make_holder, callers, await_waiting) -> None:
    source = FakeSource()
    source.hold()
    holder = make_holder(source)
    waiting = callers(8, holder.token)
    await_waiting(holder, 8)
    holder.close()
    assert {type(outcome) for outcome in waiting.outcomes()} == {TokenUnavailable}
    assert source.closed
    source.let_go()


@pytest.mark.parametrize("started", [False, True], ids=["never-started", "started"])
def test_closed_holder_fetches_no_more(make_holder, threads_of_holder, clock: Clock, started: bool) -> None:
    source = FakeSource()
    holder = make_holder(source)
    if started:
        assert holder.token().value == "token-1"
    threads = threads_of_holder(holder)
    holder.close()
    holder.close()
    for thread in threads:
        thread.join(10)
    clock.move(298)
    with pytest.raises(TokenUnavailable):
        holder.token()
    assert threads_of_holder(holder) == []
    assert source.fetches == (1 if started else 0)


def test_closed_holder_still_hands_out_the_token_it_has(make_holder) -> None:
    holder = make_holder(FakeSource())
    token = holder.token()
    holder.close()
    assert holder.token() is token


def test_fetch_that_fails_because_of_the_close_is_not_repeated(make_holder, threads_of_holder) -> None:
    source = FakeSource(_BROKEN)
    source.hold()
    holder = make_holder(source)
    holder.start()
    source.await_fetch()
    (thread,) = threads_of_holder(holder)
    holder.close()
    source.let_go()
    thread.join(10)
    assert source.fetches == 1


class _FlakyStore(MemoryStore):
    """A store whose lock fails once."""

    def __init__(self) -> None:
        super().__init__()
        self.failed = threading.Event()

    @contextmanager
    def try_lock(self) -> Iterator[bool]:
        if not self.failed.is_set():
            self.failed.set()
            raise OSError("s3cret-mark")
        with super().try_lock() as won:
            yield won


def test_thread_outlives_an_error_of_its_store(make_holder, callers, logs) -> None:
    store = _FlakyStore()
    holder = make_holder(FakeSource(), store)
    first = callers(1, holder.token)
    assert store.failed.wait(10)
    assert holder.token().value == "token-1"
    assert first.outcomes()[0].value == "token-1"
    assert "unexpected OSError" in "".join(logs)


def test_waiting_requests_get_the_token_that_another_holder_of_the_store_fetched(
    make_holder, callers, await_waiting, monkeypatch
) -> None:
    monkeypatch.setattr(schedule, "WAIT_DEADLINE_S", 1_000.0)  # the end of their wait shall not be what wakes them
    store, theirs, ours = MemoryStore(), FakeSource(), FakeSource()
    theirs.hold()
    one, two = make_holder(theirs, store), make_holder(ours, store)
    one.start()
    theirs.await_fetch()
    waiting = callers(4, two.token)
    await_waiting(two, 5)  # its thread sleeps between two looks at the lock
    theirs.let_go()
    assert {token.value for token in waiting.outcomes()} == {"token-1"}
    assert ours.fetches == 0


def test_forked_worker_starts_a_thread_of_its_own(make_holder, await_waiting, clock: Clock) -> None:
    source = FakeSource()
    holder = make_holder(source)
    holder.token()
    await_waiting(holder, 1)
    child = os.fork()
    if child == 0:
        clock.move(298)
        try:
            os._exit(0 if holder.token().value == "token-2" else 1)
        finally:
            os._exit(2)
    end = time.monotonic() + 10
    status = os.waitpid(child, os.WNOHANG)
    pause = threading.Event()
    while status[0] == 0 and time.monotonic() < end:
        pause.wait(0.01)
        status = os.waitpid(child, os.WNOHANG)
    if status[0] == 0:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert status == (child, 0)
    assert source.fetches == 1
