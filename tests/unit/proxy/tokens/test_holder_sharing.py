"""Holders that share by their store: issuers that let one token live, stores that are alone, watched sources."""

import math
from dataclasses import replace

import pytest

from proxy.tokens import holder as holder_module
from proxy.tokens.holder import TokenHolder
from proxy.tokens.record import Record
from proxy.tokens.sources.base import Grant, TokenFetchError
from proxy.tokens.stores.memory import MemoryStore
from tests.support.clock import Clock
from tests.support.token_source import FakeSource


class _Store(MemoryStore):
    """A store that is shared until it is said to be not; it notes what was saved."""

    def __init__(self) -> None:
        super().__init__()
        self.is_shared = True
        self.saved: list[Record] = []

    def save(self, record: Record) -> None:
        self.saved.append(record)
        super().save(record)


def _holder(source: FakeSource, store: _Store, clock: Clock, *, single_active: bool) -> TokenHolder:
    return TokenHolder("a", source, store, single_active=single_active, clock=clock, jitter=lambda: 0.5)


@pytest.mark.parametrize(
    ("single_active", "is_shared", "age_s", "fetches"),
    [
        pytest.param(True, True, 135, 2, id="shared-at-renewal"),
        pytest.param(True, False, 135, 1, id="alone-at-renewal"),
        pytest.param(True, False, 297.999, 1, id="alone-just-before-the-guard"),
        pytest.param(True, False, 298, 2, id="alone-at-the-guard"),
        pytest.param(False, False, 135, 2, id="alone-with-an-issuer-of-many"),
    ],
)
def test_token_that_a_new_one_would_end_is_not_renewed_early_alone(
    clock: Clock, single_active: bool, is_shared: bool, age_s: float, fetches: int
) -> None:
    source, store = FakeSource(), _Store()
    holder = _holder(source, store, clock, single_active=single_active)
    holder.renew_if_due()
    store.is_shared = is_shared
    clock.move(age_s)
    holder.renew_if_due()
    assert source.fetches == fetches


def test_holder_that_is_alone_comes_back_when_the_token_runs_out(clock: Clock) -> None:
    store = _Store()
    holder = _holder(FakeSource(), store, clock, single_active=True)
    holder.renew_if_due()
    store.is_shared = False
    clock.move(200)
    assert holder.renew_if_due() == 98


@pytest.mark.parametrize("single_active", [True, False])
def test_token_is_published_before_it_is_used(clock: Clock, single_active: bool) -> None:
    source = FakeSource()
    seen: list[object] = []

    class Watched(_Store):
        def save(self, record: Record) -> None:
            seen.append(holder.usable_token())
            super().save(record)

    holder = _holder(source, Watched(), clock, single_active=single_active)
    holder.renew_if_due()
    assert seen == [None]
    assert holder.usable_token() is not None


def test_forced_fetch_and_its_budget_are_saved_at_once(clock: Clock, make_holder) -> None:
    store = _Store()
    holder = make_holder(FakeSource(), store)
    holder.replacement(holder.token())
    assert [(record.generation, record.forced_at) for record in store.saved] == [(1, ()), (2, (1_000.0,))]


def test_breaker_is_saved_for_all(clock: Clock, make_holder) -> None:
    store = _Store()
    holder = make_holder(FakeSource(), store)
    holder.token()
    store.save(replace(store.load(), forced_at=(980.0, 985.0, 990.0)))
    clock.move(1)
    assert holder.replacement(holder.token()) is None
    assert store.load().breaker_until == 1_031.0


def test_looking_saves_nothing(clock: Clock) -> None:
    store = _Store()
    holder = _holder(FakeSource(), store, clock, single_active=False)
    for _ in range(5):
        holder.renew_if_due()
        clock.move(1)
    assert len(store.saved) == 1


class _WatchedSource(FakeSource):
    watch_s = 0.01

    def __init__(self, *answers: Grant | Exception) -> None:
        super().__init__(*answers)
        self.changed = False

    def has_changed(self) -> bool:
        return self.changed

    def fetch(self) -> Grant:
        self.changed = False
        return super().fetch()


@pytest.mark.parametrize(
    "grant",
    [
        pytest.param(Grant("second", math.inf), id="never-expires"),
        pytest.param(Grant("second", 300.0), id="ends-earlier"),
    ],
)
def test_changed_source_is_asked_before_a_renewal_is_due(clock: Clock, grant: Grant) -> None:
    source = _WatchedSource(Grant("first", math.inf), grant)
    holder = _holder(source, _Store(), clock, single_active=False)
    holder.renew_if_due()
    holder.renew_if_due()
    assert source.fetches == 1
    source.changed = True
    holder.renew_if_due()
    assert (source.fetches, holder.token().value) == (2, "second")


def test_changed_source_that_fails_keeps_the_token(clock: Clock) -> None:
    source = _WatchedSource(Grant("first", math.inf), TokenFetchError("half a file"))
    holder = _holder(source, _Store(), clock, single_active=False)
    holder.renew_if_due()
    source.changed = True
    holder.renew_if_due()
    assert (source.fetches, holder.token().value) == (2, "first")


def test_thread_looks_at_a_watched_source_by_itself(make_holder) -> None:
    source = _WatchedSource(Grant("first", math.inf), Grant("second", math.inf))
    holder = make_holder(source)
    holder.start()
    source.await_fetch()
    source.changed = True
    source.await_fetch()
    assert holder.token().value in ("first", "second")


def test_no_more_than_the_limit_wait_for_a_replacement(make_holder, callers, await_waiting, monkeypatch) -> None:
    monkeypatch.setattr(holder_module, "WAITERS_MOST", 3)
    source = FakeSource()
    holder = make_holder(source)
    refused = holder.token()
    source.await_fetch()
    source.hold()
    waiting = callers(3, lambda: holder.replacement(refused))
    source.await_fetch()
    await_waiting(holder, 3)
    assert holder.replacement(refused) is None
    source.let_go()
    assert {token.value for token in waiting.outcomes()} == {"token-2"}


def test_new_holder_knows_the_token_of_its_store_once_it_has_started(make_holder) -> None:
    store = MemoryStore()
    make_holder(FakeSource(), store).renew_if_due()
    holder = make_holder(FakeSource(), store)
    holder.start()
    assert holder.usable_token() is not None
