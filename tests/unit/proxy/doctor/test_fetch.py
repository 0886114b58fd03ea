import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import httpx
import pytest

from proxy.doctor.fetch import LOCK_TRIES, Attempt, LockLost, fetch_and_publish
from proxy.tokens.record import Record
from proxy.tokens.sources.base import Grant, TokenFetchError
from proxy.tokens.sources.endpoint import Reply
from proxy.tokens.stores.memory import MemoryStore
from proxy.tokens.token import Token, boot_clock
from tests.support.token_source import FakeSource


class SharedStore(MemoryStore):
    """Kept in memory, but as if others shared it; the lock is free after so many tries, or never."""

    is_shared = True

    def __init__(self, record: Record | None = None, lost_tries: float = 0) -> None:
        super().__init__(record)
        self.tries = 0
        self.saves = 0
        self.locked = False
        self._lost_tries = lost_tries

    def save(self, record: Record) -> None:
        assert self.locked
        self.saves += 1
        super().save(record)

    @contextmanager
    def try_lock(self) -> Iterator[bool]:
        self.tries += 1
        self.locked = self.tries > self._lost_tries
        try:
            yield self.locked
        finally:
            self.locked = False


def held(value: str = "old", age_s: float = 10.0, lifetime_s: float = 300.0) -> Record:
    token = Token(value, fetched_at=boot_clock() - age_s, lifetime_s=lifetime_s, generation=4)
    return Record(token=token, generation=4)


def fetch(store: MemoryStore, grant: Grant, *, may_go_unpublished: bool = True):
    return fetch_and_publish(lambda: grant, store, may_go_unpublished=may_go_unpublished, pause_s=0)


def test_token_is_saved_under_the_lock_with_the_next_generation() -> None:
    store = SharedStore(held())
    fetched = fetch(store, Grant("new", 300.0))
    assert (fetched.where, fetched.token.value, fetched.token.generation) == ("published", "new", 5)
    assert store.load().token is fetched.token


def test_new_token_is_published_even_if_it_ends_earlier_as_the_old_one_may_be_dead() -> None:
    store = SharedStore(held())
    assert fetch(store, Grant("new", 60.0)).where == "published"
    assert store.load().token.value == "new"


def test_a_good_fetch_ends_the_back_off_of_all() -> None:
    store = SharedStore(replace(held(), failures=3, refusals=2, retry_at=boot_clock() + 300))
    fetch(store, Grant("new", 300.0))
    assert (store.load().failures, store.load().refusals) == (0, 0)
    assert not store.load().cooling_down(boot_clock())


def test_the_same_token_again_is_told_as_such() -> None:
    store = SharedStore(held("same"))
    before = store.load().token
    fetched = fetch(store, Grant("same", 300.0))
    assert (fetched.where, fetched.token) == ("held already", before)


def test_in_a_store_that_nobody_shares_the_token_is_here_alone() -> None:
    assert fetch(MemoryStore(), Grant("new", math.inf)).where == "here alone"


def test_failed_fetch_changes_nothing_in_the_store() -> None:
    store = SharedStore(held())
    before = store.load()

    def fail() -> Grant:
        raise TokenFetchError("no", refused=True)

    with pytest.raises(TokenFetchError):
        fetch_and_publish(fail, store, may_go_unpublished=True, pause_s=0)
    assert (store.load(), store.saves, store.locked) == (before, 0, False)


def test_token_that_has_run_out_when_it_arrives_is_a_failed_fetch() -> None:
    store = SharedStore()
    with pytest.raises(TokenFetchError, match="run out"):
        fetch(store, Grant("new", 1e-9))
    assert store.saves == 0


def test_lock_is_tried_again_while_another_has_it() -> None:
    store = SharedStore(lost_tries=3)
    assert fetch(store, Grant("new", 300.0)).where == "published"
    assert store.tries == 4


@pytest.mark.parametrize(("lost", "where"), [(LOCK_TRIES - 1, "published"), (LOCK_TRIES, "lock lost")])
def test_after_so_many_tries_it_goes_on_unpublished(lost: int, where: str) -> None:
    store = SharedStore(held(), lost_tries=lost)
    fetched = fetch(store, Grant("new", 300.0))
    assert (fetched.where, fetched.token.value) == (where, "new")
    assert store.load().token.value == ("new" if where == "published" else "old")


def test_it_fetches_nothing_unpublished_where_a_new_token_would_end_the_old_one() -> None:
    store = SharedStore(held(), lost_tries=math.inf)
    source = FakeSource()
    with pytest.raises(LockLost):
        fetch_and_publish(source.fetch, store, may_go_unpublished=False, pause_s=0)
    assert source.fetches == 0


def test_attempt_keeps_the_grant_and_the_reply_that_was_seen() -> None:
    attempt = Attempt()
    reply = Reply(200, httpx.Headers(), b"{}")

    def answer() -> Grant:
        attempt.observe(reply)
        return Grant("new", 300.0)

    attempt.fetch(FakeSource(answer))
    assert (attempt.reply, attempt.grant) == (reply, Grant("new", 300.0))
    assert attempt.took_s >= 0


def test_whatever_a_source_throws_is_a_failed_fetch_that_names_its_type_alone(mark: str) -> None:
    attempt = Attempt()
    with pytest.raises(TokenFetchError) as caught:
        attempt.fetch(FakeSource(RuntimeError(mark)))
    assert str(caught.value) == "unexpected RuntimeError"
    assert attempt.grant is None
