from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from loguru import logger

from proxy.redis_client import AWAY_S, SLOW_S, Breaker, connect
from tests.support.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker("tests", "the test goes on", clock=clock)


@pytest.fixture
def logs() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), level="TRACE", format="{level} {message}")
    yield lines
    logger.remove(sink)


def call_of(clock: Clock, took_s: float) -> Callable[[], str]:
    def call() -> str:
        clock.move(took_s)
        return "answer"

    return call


def failing(error: Exception) -> Callable[[], None]:
    def call() -> None:
        raise error

    return call


def test_answer_is_handed_on(breaker: Breaker, clock: Clock, logs: list[str]) -> None:
    assert breaker.ask(call_of(clock, 0.0)) == "answer"
    assert (breaker.is_away, breaker.may_ask(), logs) == (False, True, [])


@pytest.mark.parametrize("error", [OSError("s3cret"), TypeError("s3cret"), OverflowError("s3cret")], ids=repr)
def test_redis_is_away_after_one_call_that_failed_whatever_it_threw(
    breaker: Breaker, logs: list[str], error: Exception
) -> None:
    assert breaker.ask(failing(error)) is None
    assert (breaker.is_away, breaker.may_ask()) == (True, False)
    assert logs == [f"ERROR tests: Redis is away ({type(error).__name__}); the test goes on\n"]


@pytest.mark.parametrize(
    ("took_s", "away"),
    [
        ((2 * SLOW_S,), False),
        ((SLOW_S, SLOW_S, SLOW_S), False),
        ((2 * SLOW_S, 0.0, 2 * SLOW_S), False),
        ((2 * SLOW_S, 2 * SLOW_S), True),
        ((2 * SLOW_S, 0.0, 2 * SLOW_S, 2 * SLOW_S), True),
    ],
    ids=str,
)
def test_redis_is_away_after_two_slow_calls_in_a_row(
    breaker: Breaker, clock: Clock, logs: list[str], took_s: tuple[float, ...], away: bool
) -> None:
    clock.now = 0.0  # so that a call takes what it takes to the last bit
    assert [breaker.ask(call_of(clock, seconds)) for seconds in took_s] == ["answer"] * len(took_s)
    assert (breaker.is_away, breaker.may_ask()) == (away, not away)
    assert logs == (["ERROR tests: Redis is away (slow); the test goes on\n"] if away else [])


def test_redis_is_left_alone_for_a_while_and_told_once_for_as_long_as_it_is_away(
    breaker: Breaker, clock: Clock, logs: list[str]
) -> None:
    for _ in range(3):
        breaker.ask(failing(OSError()))
        clock.move(AWAY_S - 0.5)
        assert not breaker.may_ask()
        clock.move(0.5)
        assert breaker.may_ask()
    breaker.ask(call_of(clock, 2 * SLOW_S))
    assert breaker.is_away  # a slow answer does not show that it is back
    breaker.ask(call_of(clock, 0.0))
    assert not breaker.is_away
    assert [line.split(" (")[0].strip() for line in logs] == ["ERROR tests: Redis is away", "INFO tests: Redis is back"]


@pytest.mark.parametrize("ca_bundle", [None, "ca.pem"])
def test_ca_bundle_is_for_tls_alone(ca_bundle: str | None) -> None:
    client = connect("redis://127.0.0.1:1/0", None if ca_bundle is None else Path(ca_bundle))
    assert "ssl_ca_certs" not in client.connection_pool.connection_kwargs
    client.close()
