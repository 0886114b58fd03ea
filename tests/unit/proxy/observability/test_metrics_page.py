"""The text that Prometheus reads, and what it tells of the tokens."""

import math

import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxy.observability.metrics import Metrics
from proxy.observability.metrics_page import MetricsPage
from tests.support.counting_process import Samples, samples_of


class FakeHolder:
    """A holder in some state, which it knows only once it has started."""

    def __init__(self, state: str, seconds: float | None) -> None:
        self._state = state
        self._seconds = seconds
        self._started = False

    def start(self) -> None:
        self._started = True

    def state(self) -> str:
        return self._state if self._started else "empty"

    def seconds_to_expiry(self) -> float | None:
        return self._seconds if self._started else None


def read(page: MetricsPage) -> Samples:
    return samples_of(text_string_to_metric_families(page.text().decode()))


@pytest.mark.parametrize(
    ("state", "value"), [("empty", 0), ("expired", 1), ("stale", 2), ("fresh", 3)], ids=lambda value: str(value)
)
def test_a_state_is_a_number_and_2_or_more_is_usable(state: str, value: int) -> None:
    page = MetricsPage(Metrics([], ["corp"]), {"corp": FakeHolder(state, 12.5)})
    assert read(page)["llm_proxy_token_state corp"] == value


@pytest.mark.parametrize("seconds", [178.5, 0.0, -3.0, math.inf], ids=["ahead", "now", "past", "never"])
def test_the_seconds_to_expiry_are_told_of_a_held_token(seconds: float) -> None:
    page = MetricsPage(Metrics([], ["corp"]), {"corp": FakeHolder("fresh", seconds)})
    assert read(page)["llm_proxy_token_seconds_to_expiry corp"] == seconds


def test_no_expiry_is_told_where_no_token_is_held() -> None:
    page = MetricsPage(Metrics([], ["a", "b"]), {"a": FakeHolder("empty", None), "b": FakeHolder("fresh", 9.0)})
    assert [name for name in read(page) if "expiry" in name] == ["llm_proxy_token_seconds_to_expiry b"]


def test_what_was_counted_is_on_the_page() -> None:
    metrics = Metrics(["llm"], [])
    metrics.request_began()
    metrics.request_ended("/models", "-", 200, seconds=0.2, first_byte_s=0.1, overhead_s=None)
    samples = read(MetricsPage(metrics, {}))
    assert samples["llm_proxy_requests_total /models 200 -"] == 1
    assert samples["llm_proxy_first_byte_seconds_bucket 0.1"] == 1
