"""The text of /metrics: what all workers have counted, and how the tokens stand now. Called by a scrape only."""

from collections.abc import Iterable, Mapping
from typing import Protocol

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily

from proxy.observability.metrics import Metrics

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4  # which every scraper knows
# In this order so that 2 or more is a token that may be sent.
STATES = {"empty": 0, "expired": 1, "stale": 2, "fresh": 3}


class Holder(Protocol):
    """What is asked of a token holder."""

    def start(self) -> None: ...
    def state(self) -> str: ...
    def seconds_to_expiry(self) -> float | None: ...


class MetricsPage:
    """Made once for each app; a collector, as prometheus_client calls it."""

    def __init__(self, metrics: Metrics, holders: Mapping[str, Holder]) -> None:
        self._metrics = metrics
        self._holders = holders

    def text(self) -> bytes:
        """The metrics in Prometheus' text format, of the type CONTENT_TYPE."""
        return generate_latest(self)

    def collect(self) -> Iterable[Metric]:
        yield from self._metrics.collect()
        yield from self._tokens()

    def _tokens(self) -> Iterable[Metric]:
        """As this worker sees them. No sum over the workers, since they share the tokens."""
        state = GaugeMetricFamily(
            "llm_proxy_token_state",
            "The access token: 0 none held, 1 expired, 2 stale (usable, renewal is due), 3 fresh.",
            labels=("source",),
        )
        expiry = GaugeMetricFamily(
            "llm_proxy_token_seconds_to_expiry",
            "Until the access token expires; none held: no sample.",
            labels=("source",),
        )
        for name, holder in self._holders.items():
            holder.start()  # a worker that has had no request yet would else tell of no token
            state.add_metric((name,), STATES[holder.state()])
            seconds = holder.seconds_to_expiry()
            if seconds is not None:
                expiry.add_metric((name,), seconds)
        return state, expiry
