"""What one app counts where there are no workers; how workers count together is in test_metrics_folder."""

import pytest

from proxy.observability.metrics import REQUESTS_MOST, Metrics
from tests.support.counting_process import samples_of

ROUTE = "/chat/completions"


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(["llm"], ["corp"])


def end(metrics: Metrics, *, status: int = 200, first_byte_s: float | None = 0.2) -> None:
    metrics.request_ended(ROUTE, "llm", status, seconds=1.5, first_byte_s=first_byte_s, overhead_s=0.0004)


def test_a_request_is_in_flight_until_it_ends(metrics: Metrics) -> None:
    metrics.request_began()
    metrics.request_began()
    end(metrics)
    samples = samples_of(metrics.collect())
    assert samples["llm_proxy_in_flight"] == 1
    assert samples[f"llm_proxy_requests_total {ROUTE} 200 llm"] == 1


def test_an_ended_request_is_in_each_histogram(metrics: Metrics) -> None:
    metrics.request_began()
    end(metrics)
    samples = samples_of(metrics.collect())
    assert samples["llm_proxy_request_seconds_sum"] == 1.5
    assert (samples["llm_proxy_request_seconds_bucket 1.0"], samples["llm_proxy_request_seconds_bucket 2.5"]) == (0, 1)
    assert samples["llm_proxy_first_byte_seconds_sum"] == 0.2
    assert samples["llm_proxy_overhead_seconds_sum"] == 0.0004


def test_what_was_not_measured_is_not_counted(metrics: Metrics) -> None:
    metrics.request_began()
    metrics.request_ended("-", "-", 401, seconds=0.1, first_byte_s=None, overhead_s=None)
    samples = samples_of(metrics.collect())
    assert samples["llm_proxy_request_seconds_count"] == 1
    assert samples["llm_proxy_first_byte_seconds_count"] == 0
    assert samples["llm_proxy_overhead_seconds_count"] == 0


def test_streams_tokens_fetches_and_replays_are_counted_by_their_labels(metrics: Metrics) -> None:
    metrics.stream_ended("cut")
    metrics.tokens_used("llm", 5, 7)
    metrics.tokens_used("llm", 1, 0)
    metrics.token_fetched("corp", "refused", 0.3)
    metrics.token_replaced()
    metrics.failed_over("llm")
    samples = samples_of(metrics.collect())
    assert samples["llm_proxy_fail_overs_total llm"] == 1
    assert samples["llm_proxy_streams_total cut"] == 1
    assert samples["llm_proxy_tokens_total prompt llm"] == 6
    assert samples["llm_proxy_tokens_total completion llm"] == 7
    assert samples["llm_proxy_token_fetches_total refused corp"] == 1
    assert samples["llm_proxy_token_fetch_seconds_sum"] == 0.3
    assert samples["llm_proxy_token_replays_total"] == 1


def test_what_the_config_names_is_shown_as_0_from_the_start(metrics: Metrics) -> None:
    samples = samples_of(metrics.collect())
    for name in (
        "streams_total done",
        "streams_total timeout",
        "tokens_total prompt llm",
        "token_fetches_total failed corp",
        "token_replays_total",
        "fail_overs_total llm",
        "in_flight",
    ):
        assert samples[f"llm_proxy_{name}"] == 0


def test_series_past_the_limit_are_counted_as_one(metrics: Metrics) -> None:
    most = 2 * REQUESTS_MOST
    for status in range(most + 5):
        metrics.request_began()
        end(metrics, status=status)
    metrics.request_began()
    end(metrics, status=0)
    samples = samples_of(metrics.collect())
    assert sum(name.startswith("llm_proxy_requests_total") for name in samples) == most + 1
    assert samples["llm_proxy_requests_total - - -"] == 5
    assert samples[f"llm_proxy_requests_total {ROUTE} 0 llm"] == 2


def test_a_name_that_the_config_has_not_makes_no_series(metrics: Metrics) -> None:
    metrics.tokens_used("other", 5, 7)
    metrics.stream_ended("other")
    samples = samples_of(metrics.collect())
    assert not [name for name in samples if "other" in name]
    assert samples["llm_proxy_tokens_total - -"] == 12


def test_two_apps_of_one_process_count_apart(metrics: Metrics) -> None:
    other = Metrics(["llm"], ["corp"])
    metrics.stream_ended("done")
    assert samples_of(metrics.collect())["llm_proxy_streams_total done"] == 1
    assert samples_of(other.collect())["llm_proxy_streams_total done"] == 0
