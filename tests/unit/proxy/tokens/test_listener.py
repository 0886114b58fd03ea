"""What a holder tells whoever counts: each fetch with its result and its time, and each replay."""

from collections.abc import Callable

import pytest

from proxy.tokens.holder import TokenHolder
from proxy.tokens.listener import FetchResult
from proxy.tokens.sources.base import Grant, Source, TokenFetchError
from proxy.tokens.stores.memory import MemoryStore
from tests.support.clock import Clock
from tests.support.token_source import Answer, FakeSource


class Listener:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.fetches: list[tuple[str, FetchResult, float]] = []
        self.replays = 0

    def token_fetched(self, source: str, result: FetchResult, seconds: float) -> None:
        self.fetches.append((source, result, seconds))

    def token_replaced(self) -> None:
        self.replays += 1


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def holder_of(clock: Clock, listener: Listener) -> Callable[[Source], TokenHolder]:
    """Holders that the test moves by hand."""
    return lambda source: TokenHolder("corp", source, MemoryStore(), clock=clock, jitter=lambda: 0.5, listener=listener)


@pytest.mark.parametrize(
    ("answers", "result"),
    [
        pytest.param([Grant("a", 300.0)], "ok", id="good"),
        pytest.param([TokenFetchError("status 503")], "failed", id="failed"),
        pytest.param([TokenFetchError("status 401", refused=True)], "refused", id="refused"),
        pytest.param([ValueError("a bug")], "failed", id="bug of a source"),
        pytest.param([Grant("a", -1.0)], "failed", id="run out when it arrived"),
        pytest.param([TokenFetchError("reset", connection=True), Grant("a", 300.0)], "ok", id="good at the second try"),
    ],
)
def test_a_fetch_is_told_once_with_its_result(
    holder_of: Callable[[Source], TokenHolder], listener: Listener, answers: list[Answer], result: str
) -> None:
    holder_of(FakeSource(*answers)).renew_if_due()
    assert listener.fetches == [("corp", result, 0.0)]


@pytest.mark.parametrize("error", [None, TokenFetchError("status 503")], ids=["good", "failed"])
def test_a_fetch_is_told_with_the_time_that_it_took(
    holder_of: Callable[[Source], TokenHolder], listener: Listener, clock: Clock, error: Exception | None
) -> None:
    def fetch() -> Grant:
        clock.move(1.5)
        if error is not None:
            raise error
        return Grant("a", 300.0)

    holder_of(FakeSource(fetch)).renew_if_due()
    ((_, _, seconds),) = listener.fetches
    assert seconds == pytest.approx(1.5)


def test_nothing_is_told_where_nothing_is_fetched(
    holder_of: Callable[[Source], TokenHolder], listener: Listener
) -> None:
    holder = holder_of(FakeSource())
    holder.renew_if_due()
    holder.renew_if_due()
    holder.token()
    assert len(listener.fetches) == 1


def test_each_replacement_of_a_refused_token_is_told(
    holder_of: Callable[[Source], TokenHolder], listener: Listener, clock: Clock
) -> None:
    holder = holder_of(FakeSource())
    holder.renew_if_due()
    refused = holder.token()
    clock.move(135)
    holder.renew_if_due()
    assert holder.replacement(refused) is not None
    assert holder.replacement(refused) is not None
    assert listener.replays == 2


def test_a_refused_token_without_a_replacement_is_no_replay(
    holder_of: Callable[[Source], TokenHolder], listener: Listener
) -> None:
    holder = holder_of(FakeSource())
    holder.renew_if_due()
    refused = holder.token()
    holder.close()
    assert holder.replacement(refused) is None
    assert listener.replays == 0
