import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from proxy.tokens.sources.base import TokenFetchError
from proxy.tokens.sources.deadline import GIVEN_UP_MOST, TimedCalls

_SHORT_S = 0.05
_LONG_S = 10.0


@pytest.fixture
def gate(calls_end: Callable[[], None]) -> Iterator[threading.Event]:
    """What calls wait for; set after the test, so that none goes on."""
    gate = threading.Event()
    yield gate
    gate.set()
    calls_end()


def _failure(calls: TimedCalls, call: Callable[[], object]) -> str:
    with pytest.raises(TokenFetchError) as caught:
        calls.run(call, _SHORT_S)
    assert caught.value.__cause__ is None
    assert not caught.value.refused
    return str(caught.value)


def test_call_gives_what_it_returns_and_leaves_no_thread() -> None:
    calls = TimedCalls("x")
    assert [calls.run(lambda: 1, _LONG_S), calls.run(lambda: None, _LONG_S)] == [1, None]
    assert "token-call" not in [thread.name for thread in threading.enumerate()]


@pytest.mark.parametrize("error", [ValueError("v"), TimeoutError(), SystemExit(1), TokenFetchError("t")], ids=repr)
def test_call_raises_what_it_raises_and_nothing_is_printed(error: BaseException, capfd) -> None:
    def call() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        TimedCalls("x").run(call, _LONG_S)
    assert caught.value is error
    assert capfd.readouterr() == ("", "")


def test_call_is_broken_off_when_its_time_is_over_and_what_it_brings_is_thrown_away(gate, calls_end) -> None:
    calls, broken_off = TimedCalls("x"), threading.Event()
    with pytest.raises(TokenFetchError):
        calls.run(lambda: gate.wait(10), _SHORT_S, break_off=broken_off.set)
    assert broken_off.is_set()
    gate.set()
    calls_end()
    assert calls.run(lambda: "own", _LONG_S) == "own"


def test_call_that_ends_in_time_is_not_broken_off(calls_end) -> None:
    broken_off = threading.Event()
    TimedCalls("x").run(lambda: 1, _LONG_S, break_off=broken_off.set)
    calls_end()
    assert not broken_off.is_set()


def test_error_of_a_call_that_was_given_up_is_not_printed(gate, calls_end, capfd) -> None:
    def call() -> None:
        gate.wait(10)
        raise ValueError("s3cret-mark")

    _failure(TimedCalls("x"), call)
    gate.set()
    calls_end()
    assert capfd.readouterr() == ("", "")


def test_no_call_is_begun_while_three_that_were_given_up_go_on(calls_end) -> None:
    calls, begun = TimedCalls("x"), list[threading.Thread]()
    gates = [threading.Event() for _ in range(GIVEN_UP_MOST)]

    def wait_at(gate: threading.Event) -> None:
        begun.append(threading.current_thread())
        gate.wait(10)

    for gate in gates:
        assert _failure(calls, partial(wait_at, gate)) == "x: no answer within the deadline"
    assert _failure(calls, partial(wait_at, gates[0])) == "x: 3 calls that were given up have still not ended"
    assert len(begun) == GIVEN_UP_MOST
    gates[1].set()
    begun[1].join(10)
    assert calls.run(lambda: "one more", _LONG_S) == "one more"
    for gate in gates:
        gate.set()
    calls_end()


def test_calls_of_one_source_do_not_stop_those_of_another(gate) -> None:
    calls = TimedCalls("x")
    for _ in range(GIVEN_UP_MOST):
        _failure(calls, lambda: gate.wait(10))
    assert TimedCalls("y").run(lambda: 1, _LONG_S) == 1


def test_thread_of_a_call_does_not_keep_the_process_alive() -> None:
    assert TimedCalls("x").run(lambda: threading.current_thread().daemon, _LONG_S)
