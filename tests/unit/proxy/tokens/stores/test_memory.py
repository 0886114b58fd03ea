import threading
from dataclasses import replace

import pytest

from proxy.tokens.record import Record
from proxy.tokens.stores.memory import MemoryStore


def test_nothing_saved_is_an_empty_record() -> None:
    assert MemoryStore().load() == Record()


def test_record_saved_last_is_loaded() -> None:
    store = MemoryStore()
    for failures in (1, 2):
        store.save(replace(Record(), failures=failures))
    assert store.load().failures == 2


def test_stores_share_nothing() -> None:
    store = MemoryStore()
    store.save(replace(Record(), failures=1))
    assert MemoryStore().load() == Record()


def test_lock_is_won_by_one_at_a_time_and_nobody_waits_for_it() -> None:
    store = MemoryStore()
    with store.try_lock() as first, store.try_lock() as second:
        assert (first, second) == (True, False)
        with store.try_lock() as third:
            assert not third
    with store.try_lock() as again:
        assert again


def test_lock_is_given_back_after_an_error() -> None:
    store = MemoryStore()
    with pytest.raises(OSError, match="cut"), store.try_lock():
        raise OSError("cut")
    with store.try_lock() as won:
        assert won


def test_one_of_many_threads_wins_the_lock(callers) -> None:
    store, all_tried = MemoryStore(), threading.Barrier(16)

    def try_and_keep() -> bool:
        with store.try_lock() as won:
            all_tried.wait(10)
            return won

    assert sorted(callers(16, try_and_keep).outcomes()) == [False] * 15 + [True]
