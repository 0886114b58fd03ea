"""What a request gets to replay with after the upstream refused its token."""

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from proxy.tokens.holder import TokenHolder
from proxy.tokens.sources.base import Grant, TokenFetchError
from proxy.tokens.stores.memory import MemoryStore
from tests.support.clock import Clock
from tests.support.token_source import FakeSource

_TIMEOUT = TokenFetchError("no answer")


def test_token_that_is_no_longer_current_is_replaced_without_a_fetch_and_without_the_thread(
    make_holder, threads_of_holder, clock: Clock
) -> None:
    source = FakeSource()
    holder = make_holder(source)
    holder.renew_if_due()
    old = holder.token()
    clock.move(135)
    holder.renew_if_due()
    assert holder.replacement(old) is holder.token()
    assert (holder.token().value, source.fetches, threads_of_holder(holder)) == ("token-2", 2, [])


def test_token_that_another_holder_of_the_store_has_replaced_is_replaced_without_a_fetch(
    make_holder, await_waiting, clock: Clock
) -> None:
    store, source = MemoryStore(), FakeSource()
    holder, other = make_holder(source, store), make_holder(FakeSource(Grant("theirs", 300.0)), store)
    refused = holder.token()
    await_waiting(holder, 1)
    clock.move(135)
    other.renew_if_due()
    replacement = holder.replacement(refused)
    assert replacement is not None
    assert (replacement.value, source.fetches) == ("theirs", 1)
    assert store.load().forced_at == ()


@pytest.mark.parametrize("count", [1, 50])
def test_current_token_refused_by_many_is_replaced_by_one_fetch(make_holder, callers, count: int) -> None:
    source = FakeSource()
    holder = make_holder(source)
    refused = holder.token()
    replacements = callers(count, lambda: holder.replacement(refused)).outcomes()
    assert [token.value for token in replacements] == ["token-2"] * count
    assert source.fetches == 2


def test_all_who_come_during_the_forced_fetch_wait_for_it(make_holder, callers, await_waiting) -> None:
    source = FakeSource()
    holder = make_holder(source)
    refused = holder.token()
    source.hold()
    waiting = callers(16, lambda: holder.replacement(refused))
    source.await_fetch()
    source.await_fetch()
    await_waiting(holder, 16)
    assert holder.token() is refused  # nobody who only asks for a token is held up
    source.let_go()
    assert {token.value for token in waiting.outcomes()} == {"token-2"}
    assert source.fetches == 2


@pytest.mark.parametrize(
    "grant",
    [
        pytest.param(Grant("renewed", 300.0), id="ends-later"),
        pytest.param(Grant("renewed", 165.0), id="ends-at-the-same-instant"),
        pytest.param(Grant("renewed", 60.0), id="ends-earlier"),
    ],
)
def test_token_refused_during_its_renewal_is_replaced_by_what_that_brings(
    make_holder, callers, await_waiting, begin_renewal, grant: Grant
) -> None:
    source = FakeSource(Grant("first", 300.0), grant)
    holder = make_holder(source)
    refused = holder.token()
    source.await_fetch()
    source.hold()
    begin_renewal(holder, 135)
    source.await_fetch()
    waiting = callers(8, lambda: holder.replacement(refused))
    await_waiting(holder, 8)
    source.let_go()
    assert [token and token.value for token in waiting.outcomes()] == ["renewed"] * 8
    assert source.fetches == 2


def test_failed_forced_fetch_gives_none_to_all_and_keeps_the_token(make_holder, callers, await_waiting) -> None:
    source = FakeSource(Grant("first", 300.0), _TIMEOUT)
    holder = make_holder(source)
    refused = holder.token()
    source.hold()
    waiting = callers(8, lambda: holder.replacement(refused))
    source.await_fetch()
    source.await_fetch()
    await_waiting(holder, 8)
    source.let_go()
    assert waiting.outcomes() == [None] * 8
    assert holder.replacement(refused) is None
    assert (source.fetches, holder.token()) == (2, refused)


@pytest.mark.parametrize("lifetime_s", [300.0, math.inf], ids=["300-s", "never-expires"])
def test_same_token_again_is_no_replacement(make_holder, lifetime_s: float) -> None:
    source = FakeSource(*[Grant("same", lifetime_s)] * 2)
    holder = make_holder(source)
    refused = holder.token()
    assert holder.replacement(refused) is None
    assert (source.fetches, holder.token()) == (2, refused)


def test_static_token_is_read_again_when_it_is_refused(make_holder) -> None:
    holder = make_holder(FakeSource(Grant("old", math.inf), Grant("new", math.inf)))
    replacement = holder.replacement(holder.token())
    assert replacement is not None
    assert replacement.value == holder.token().value == "new"


@pytest.mark.parametrize(
    ("ages_s", "replaced"),
    [
        pytest.param([0, 4.999], [True, False], id="just-before-5-s"),
        pytest.param([0, 5], [True, True], id="at-5-s"),
        pytest.param([0, 5, 10, 15], [True, True, True, False], id="fourth-in-a-minute"),
        pytest.param([0, 5, 10, 59.999], [True, True, True, False], id="fourth-just-before-the-minute-is-over"),
        pytest.param([0, 5, 10, 60], [True, True, True, True], id="fourth-when-the-minute-is-over"),
        pytest.param([0, 5, 10, 55, 84.9, 85], [True, True, True, False, False, True], id="breaker-of-30-s"),
    ],
)
def test_forced_fetches_keep_to_the_budget(
    make_holder, clock: Clock, ages_s: list[float], replaced: list[bool]
) -> None:
    source = FakeSource(*[Grant(f"long-{number}", 3600.0) for number in range(10)])
    holder = make_holder(source)
    holder.token()
    begin = clock.now
    outcomes = []
    for age_s in ages_s:
        clock.now = begin + age_s
        outcomes.append(holder.replacement(holder.token()) is not None)
    assert outcomes == replaced
    assert source.fetches == 1 + sum(replaced)


def test_upstream_that_always_refuses_costs_three_fetches_in_the_first_minute(make_holder, clock: Clock) -> None:
    source = FakeSource()
    holder = make_holder(source)
    holder.token()
    for _ in range(599):
        holder.replacement(holder.token())
        clock.move(0.1)
    assert source.fetches == 1 + 3


@pytest.mark.parametrize(
    ("waited_s", "fetches"),
    [pytest.param(0.874, 2, id="just-before"), pytest.param(0.875, 3, id="at-the-end")],
)
def test_no_fetch_is_forced_while_a_failed_one_cools_down(
    make_holder, await_waiting, begin_renewal, clock: Clock, waited_s: float, fetches: int
) -> None:
    source = FakeSource(Grant("first", 300.0))
    holder = make_holder(source)
    refused = holder.token()
    source.answer(_TIMEOUT)
    begin_renewal(holder, 135)
    await_waiting(holder, 1)
    clock.move(waited_s)
    replacement = holder.replacement(refused)
    assert (replacement is not None, source.fetches) == (fetches == 3, fetches)


def _exhaust_budget(holder: TokenHolder, clock: Clock) -> None:
    for _ in range(3):
        assert holder.replacement(holder.token()) is not None
        clock.move(5)
    assert holder.replacement(holder.token()) is None


def test_refused_token_that_has_run_out_waits_for_its_ordinary_successor(make_holder, clock: Clock) -> None:
    source = FakeSource(*[Grant(f"short-{number}", 16.0) for number in range(10)])
    holder = make_holder(source)
    _exhaust_budget(holder, clock)
    refused = holder.token()
    clock.move(16)
    replacement = holder.replacement(refused)
    assert replacement is not None
    assert (replacement.value, source.fetches) == ("short-4", 5)


def test_refused_token_that_has_run_out_spends_nothing_of_the_budget(make_holder, clock: Clock) -> None:
    source = FakeSource(*[Grant(f"short-{number}", 4.0) for number in range(10)])
    holder = make_holder(source)
    for number in range(1, 6):
        refused = holder.token()
        clock.move(4)
        replacement = holder.replacement(refused)
        assert replacement is not None
        assert replacement.value == f"short-{number}"


def test_refused_token_that_has_run_out_gets_none_in_the_cool_down(make_holder, clock: Clock) -> None:
    source = FakeSource(Grant("first", 300.0), _TIMEOUT)
    holder = make_holder(source)
    refused = holder.token()
    clock.move(298)
    assert holder.replacement(refused) is None
    assert holder.replacement(refused) is None
    assert source.fetches == 2


def test_closed_holder_has_no_replacement(make_holder, threads_of_holder) -> None:
    source = FakeSource()
    holder = make_holder(source)
    refused = holder.token()
    holder.close()
    assert holder.replacement(refused) is None
    assert source.fetches == 1


def test_close_tells_those_who_wait_for_a_replacement(make_holder, callers, await_waiting) -> None:
    source = FakeSource()
    holder = make_holder(source)
    refused = holder.token()
    source.hold()
    waiting = callers(4, lambda: holder.replacement(refused))
    source.await_fetch()
    source.await_fetch()
    await_waiting(holder, 4)
    holder.close()
    assert waiting.outcomes() == [None] * 4
    source.let_go()


class _BusyStore(MemoryStore):
    """A store whose lock the holder's thread loses while it is busy."""

    def __init__(self) -> None:
        super().__init__()
        self.busy = False

    @contextmanager
    def try_lock(self) -> Iterator[bool]:
        if self.busy and threading.current_thread().name.startswith("token-"):
            yield False
        else:
            with super().try_lock() as won:
                yield won


def test_forced_fetch_does_not_spin_on_a_lock_that_another_holds(make_holder, callers, await_waiting) -> None:
    source, store = FakeSource(), _BusyStore()
    holder = make_holder(source, store)
    refused = holder.token()
    store.busy = True
    waiting = callers(1, lambda: holder.replacement(refused))
    await_waiting(holder, 2)  # the caller, and the thread between two tries
    store.busy = False
    assert waiting.outcomes()[0].value == "token-2"
