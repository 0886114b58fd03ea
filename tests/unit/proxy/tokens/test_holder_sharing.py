"""Holders that share by their store: issuers that let one token live, stores that are alone, watched sources."""

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from proxy.tokens import holder as holder_module
from proxy.tokens.holder import TokenHolder
from proxy.tokens.record import Record, after_failure
from proxy.tokens.sources.base import Grant, TokenFetchError
from proxy.tokens.stores.memory import MemoryStore
from proxy.tokens.token import Token
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


def test_more_than_the_limit_may_wait_for_a_replacement(make_holder, callers, await_waiting, monkeypatch) -> None:
    monkeypatch.setattr(holder_module, "WAITERS_MOST", 3)
    source = FakeSource()
    holder = make_holder(source)
    refused = holder.token()
    source.await_fetch()
    source.hold()
    waiting = callers(20, lambda: holder.replacement(refused))
    source.await_fetch()
    await_waiting(holder, 20)
    source.let_go()
    assert {token.value for token in waiting.outcomes()} == {"token-2"}


def test_new_holder_knows_the_token_of_its_store_once_it_has_started(make_holder) -> None:
    store = MemoryStore()
    make_holder(FakeSource(), store).renew_if_due()
    holder = make_holder(FakeSource(), store)
    holder.start()
    assert holder.usable_token() is not None


@pytest.mark.parametrize("state", ["refused", "run-out"])
def test_token_that_is_good_for_nothing_gives_way_to_an_older_one_of_the_store(
    make_holder, clock: Clock, state: str
) -> None:
    store = _Store()
    holder = make_holder(FakeSource(Grant("ours", 300.0), TokenFetchError("no answer")), store)
    ours = holder.token()
    older = Token("older", fetched_at=clock.now - 1, lifetime_s=3_600.0, generation=1)
    store.save(replace(store.load(), token=older))
    if state == "run-out":
        clock.move(298)
        assert holder.token().value == "older"
    else:
        clock.move(1)
        assert holder.replacement(ours).value == "older"


@pytest.mark.parametrize(("generation", "sent"), [(1, "ours"), (2, "theirs")])
def test_usable_token_gives_way_to_a_larger_generation_alone(
    clock: Clock, make_holder, generation: int, sent: str
) -> None:
    store = _Store()
    holder = make_holder(FakeSource(Grant("ours", 300.0)), store)
    holder.renew_if_due()
    theirs = Token("theirs", fetched_at=clock.now - 1, lifetime_s=3_600.0, generation=generation)
    store.save(replace(store.load(), token=theirs))
    holder.renew_if_due()
    assert holder.token().value == sent


class _StuckStore(_Store):
    """A store whose lock somebody keeps for ever."""

    @contextmanager
    def try_lock(self) -> Iterator[bool]:
        yield False


class _SlowSource(FakeSource):
    takes_most_s = 20.0


@pytest.mark.parametrize(
    ("source", "kept_s", "fetches"),
    [
        pytest.param(FakeSource(), 6.999, 0, id="just-before-7-s"),
        pytest.param(FakeSource(), 7.0, 1, id="at-7-s"),
        pytest.param(_SlowSource(), 20.0, 0, id="a-fetch-may-take-so-long"),
        pytest.param(_SlowSource(), 20.25, 1, id="and-no-longer"),
    ],
)
def test_lock_is_stuck_once_no_fetch_can_take_so_long(
    make_holder, clock: Clock, source: FakeSource, kept_s: float, fetches: int
) -> None:
    holder = make_holder(source, _StuckStore())
    assert holder.renew_if_due() == 0.25
    clock.move(kept_s)
    holder.renew_if_due()
    assert source.fetches == fetches


def test_lock_that_others_keep_in_turn_is_not_stuck(make_holder, clock: Clock) -> None:
    source, store = FakeSource(), _StuckStore()
    holder = make_holder(source, store)
    for _ in range(10):
        assert holder.renew_if_due() == 0.25
        clock.move(6)
        store.save(after_failure(store.load(), TokenFetchError("no answer"), now=clock.now, jitter=0.0))
        clock.move(holder.renew_if_due())
    assert source.fetches == 0


def test_stuck_lock_does_not_keep_a_refused_token_in_use(make_holder, callers, await_waiting, clock: Clock) -> None:
    source, store = FakeSource(), _StuckStore()
    store.save(Record(Token("old", fetched_at=clock.now, lifetime_s=3_600.0, generation=1), 1))
    holder = make_holder(source, store)
    waiting = callers(1, lambda: holder.replacement(holder.token()))
    await_waiting(holder, 2)
    clock.move(7)
    holder.renew_if_due()
    waiting.outcomes()
    assert holder.token().value == "token-1"


def test_token_refused_as_soon_as_it_is_seen_gets_a_turn_of_its_own(make_holder, clock: Clock) -> None:
    refusals: list[Token | None] = []

    class Slow(_Store):
        """Whose lock is given back long after the token was seen."""

        @contextmanager
        def try_lock(self) -> Iterator[bool]:
            with super().try_lock() as won:
                yield won
            if not refusals:
                seen = holder.usable_token()
                assert seen is not None
                asking = threading.Thread(target=lambda: refusals.append(holder.replacement(seen)))
                refusals.append(None)
                asking.start()
                threads.append(asking)

    threads: list[threading.Thread] = []
    holder = make_holder(FakeSource(), Slow())
    holder.token()
    for _ in range(1000):
        if threads:
            break
        time.sleep(0.001)
    threads[0].join(10)
    assert refusals[1] is not None
    assert refusals[1].value == "token-2"
