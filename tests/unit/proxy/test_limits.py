import threading

import pytest

from proxy.auth import Caller
from proxy.errors import Overloaded, RateLimitExceeded
from proxy.limits import RateLimits, Slots
from tests.support.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


# Rates


@pytest.mark.parametrize("most", [1, 2, 50])
def test_key_has_its_requests_per_minute_and_no_more(most: int) -> None:
    rates, caller = RateLimits(), Caller("a", requests_per_minute=most)
    for _ in range(most):
        rates.count(caller)
    with pytest.raises(RateLimitExceeded) as caught:
        rates.count(caller)
    assert (caught.value.status, caught.value.code) == (429, "rate_limit_exceeded")
    assert caught.value.retry_after_s is not None
    assert 1 <= caught.value.retry_after_s <= 60


def test_keys_have_rates_of_their_own() -> None:
    rates = RateLimits()
    rates.count(Caller("a", requests_per_minute=1))
    rates.count(Caller("b", requests_per_minute=1))
    with pytest.raises(RateLimitExceeded):
        rates.count(Caller("a", requests_per_minute=1))


def test_key_without_a_rate_is_not_limited() -> None:
    rates = RateLimits()
    for _ in range(1000):
        rates.count(Caller("a"))


def test_rate_holds_in_every_minute_wherever_it_begins(clock: Clock) -> None:
    rates, caller = RateLimits(now=clock), Caller("a", requests_per_minute=3)

    def takes(at: float) -> bool:
        clock.now = at
        try:
            rates.count(caller)
        except RateLimitExceeded:
            return False
        return True

    moments = [50.0, 59.0, 59.5, 60.0, 70.0, 109.9, 110.0, 118.9, 119.0, 119.4, 119.5, 119.6]
    taken = [at for at in moments if takes(at)]
    assert taken == [50.0, 59.0, 59.5, 110.0, 119.0, 119.5]


def test_refused_requests_do_not_count_and_are_told_when_one_is_free(clock: Clock) -> None:
    rates, caller = RateLimits(now=clock), Caller("a", requests_per_minute=1)
    rates.count(caller)
    for wait_s, left_s in ((0.5, 59.5), (39.5, 20.0), (19.9, 1.0)):
        clock.move(wait_s)
        with pytest.raises(RateLimitExceeded) as caught:
            rates.count(caller)
        assert caught.value.retry_after_s == pytest.approx(left_s)
    clock.move(0.1)
    rates.count(caller)


def test_rate_is_counted_right_by_many_threads() -> None:
    rates, caller = RateLimits(), Caller("a", requests_per_minute=100)
    refused: list[int] = []

    def count() -> None:
        for _ in range(50):
            try:
                rates.count(caller)
            except RateLimitExceeded:
                refused.append(1)

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 300


def test_rate_that_a_reload_lowered_tells_when_a_request_is_free(clock: Clock) -> None:
    rates = RateLimits(now=clock)
    for _ in range(4):
        rates.count(Caller("a", requests_per_minute=4))
        clock.move(10)
    lowered = Caller("a", requests_per_minute=2)
    with pytest.raises(RateLimitExceeded) as caught:
        rates.count(lowered)
    assert caught.value.retry_after_s == pytest.approx(40)  # the third of the four, at 20 s, is the second last
    clock.move(40)
    rates.count(lowered)


# Rates that are shared


class FakeShared:
    """Says what it is told to, in turn; `asked` holds the questions."""

    def __init__(self, *answers: float | None) -> None:
        self._answers = list(answers)
        self.asked: list[tuple[str, int]] = []

    def take(self, label: str, most: int) -> float | None:
        self.asked.append((label, most))
        return self._answers.pop(0)


def test_shared_count_decides() -> None:
    shared = FakeShared(0.0, 0.0, 0.0, 12.5)
    rates, caller = RateLimits(shared), Caller("a", requests_per_minute=1)
    for _ in range(3):
        rates.count(caller)
    with pytest.raises(RateLimitExceeded) as caught:
        rates.count(caller)
    assert caught.value.retry_after_s == 12.5
    assert shared.asked == [("a", 1)] * 4


def test_key_without_a_rate_is_not_asked_for() -> None:
    shared = FakeShared()
    RateLimits(shared).count(Caller("a"))
    assert shared.asked == []


def test_worker_goes_on_alone_with_what_was_shared_and_not_with_what_was_refused(clock: Clock) -> None:
    shared = FakeShared(0.0, 30.0, 30.0, None, None)
    rates, caller = RateLimits(shared, now=clock), Caller("a", requests_per_minute=2)
    rates.count(caller)
    for _ in range(2):
        with pytest.raises(RateLimitExceeded):
            rates.count(caller)
    clock.move(10)
    rates.count(caller)
    with pytest.raises(RateLimitExceeded) as caught:
        rates.count(caller)
    assert caught.value.retry_after_s == pytest.approx(50)


# Slots


def test_proxy_takes_its_requests_and_no_more() -> None:
    slots = Slots(2)
    slots.take(Caller("a"))
    slots.take(Caller("b"))
    with pytest.raises(Overloaded) as caught:
        slots.take(Caller("c"))
    assert (caught.value.status, caught.value.code, caught.value.retry_after_s) == (503, "overloaded", 1)


def test_key_runs_its_requests_and_no_more() -> None:
    slots, caller = Slots(10), Caller("a", max_concurrent=2)
    slots.take(caller)
    slots.take(caller)
    with pytest.raises(RateLimitExceeded) as caught:
        slots.take(caller)
    assert (caught.value.status, caught.value.retry_after_s) == (429, 1)
    slots.take(Caller("b", max_concurrent=1))


def test_slot_that_was_given_back_is_free() -> None:
    slots, caller = Slots(1), Caller("a", max_concurrent=1)
    for _ in range(3):
        slots.take(caller)
        slots.give_back(caller)
    assert slots.running == 0


def test_refused_request_takes_no_slot() -> None:
    slots, caller = Slots(2), Caller("a", max_concurrent=1)
    slots.take(caller)
    with pytest.raises(RateLimitExceeded):
        slots.take(caller)
    slots.take(Caller("b"))
    assert slots.running == 2


def test_requests_that_run_are_counted_over_all_keys() -> None:
    slots, a, b = Slots(10), Caller("a"), Caller("b", max_concurrent=5)
    for caller in (a, a, b):
        slots.take(caller)
    slots.give_back(a)
    assert slots.running == 2


def test_slots_are_counted_right_by_many_threads() -> None:
    slots, caller, start = Slots(50), Caller("a", max_concurrent=50), threading.Barrier(8)
    taken: list[int] = []

    def work() -> None:
        start.wait()
        for _ in range(500):
            slots.take(caller)
            taken.append(1)
            slots.give_back(caller)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(taken), slots.running) == (4000, 0)
