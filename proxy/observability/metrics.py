"""Metrics: what a worker counts. Called once or twice a request by the hooks, and by the token holders.

Where the counts are kept is decided by `metrics_folder`, and how they are shown by `metrics_page`. Labels take values
from the config and from our own routes only, and the number of series has a limit, so no caller can make the counts
grow. No name of a caller, model or key is ever a label.
"""

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TypeAlias

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric

from proxy.observability.metrics_folder import collect_shared, take_place

# Series of llm_proxy_requests_total for each upstream: 12 routes with 8 statuses are far from it.
REQUESTS_MOST = 100
STREAM_ENDS = ("done", "cut", "caller_gone", "timeout")
FETCH_RESULTS = ("ok", "failed", "refused")
KINDS = ("prompt", "completion")

_REQUEST_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 1800)
_FIRST_BYTE_S = (0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_OVERHEAD_S = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 1)
_FETCH_S = (0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_HISTOGRAM_SERIES = sum(len(bounds) + 2 for bounds in (_REQUEST_S, _FIRST_BYTE_S, _OVERHEAD_S, _FETCH_S))

_Labels: TypeAlias = tuple[object, ...]


class Metrics:
    """The counts of one worker, or of one app where there are no workers. Safe for threads and greenlets."""

    def __init__(self, upstreams: Collection[str], sources: Collection[str], folder: Path | None = None) -> None:
        """`upstreams` and `sources`: the names in the config. `folder`: where all workers count; None: for itself."""
        requests_most = REQUESTS_MOST * (len(upstreams) + 1)  # and those that reached no upstream
        others = (len(KINDS) + 1) * len(upstreams) + len(STREAM_ENDS) + len(FETCH_RESULTS) * len(sources) + 8
        self._folder = take_place(
            folder, counter_series=requests_most + others, histogram_series=_HISTOGRAM_SERIES, gauge_series=1
        )
        self._registry = registry = CollectorRegistry()
        self._in_flight = Gauge(
            "llm_proxy_in_flight", "Requests that run now.", registry=registry, multiprocess_mode="livesum"
        )
        self._requests = _Children(
            Counter(
                "llm_proxy_requests_total", "Requests that ended.", ("route", "upstream", "status"), registry=registry
            ),
            most=requests_most,
        )
        self._request_s = Histogram(
            "llm_proxy_request_seconds",
            "From a request's head to its last byte.",
            registry=registry,
            buckets=_REQUEST_S,
        )
        self._first_byte_s = Histogram(
            "llm_proxy_first_byte_seconds",
            "From a request's head to the first byte of its answer.",
            registry=registry,
            buckets=_FIRST_BYTE_S,
        )
        self._overhead_s = Histogram(
            "llm_proxy_overhead_seconds",
            "What the proxy adds before the first byte.",
            registry=registry,
            buckets=_OVERHEAD_S,
        )
        self._streams = _Children(
            Counter("llm_proxy_streams_total", "Event streams that ended.", ("end",), registry=registry),
            ((end,) for end in STREAM_ENDS),
        )
        self._tokens = _Children(
            Counter("llm_proxy_tokens_total", "Model tokens by usage.", ("upstream", "kind"), registry=registry),
            ((upstream, kind) for upstream in upstreams for kind in KINDS),
        )
        self._fail_overs = _Children(
            Counter(
                "llm_proxy_fail_overs_total",
                "Requests handed on to a second upstream.",
                ("upstream",),
                registry=registry,
            ),
            ((upstream,) for upstream in upstreams),
        )
        self._fetches = _Children(
            Counter("llm_proxy_token_fetches_total", "Access token fetches.", ("source", "result"), registry=registry),
            ((source, result) for source in sources for result in FETCH_RESULTS),
        )
        self._fetch_s = Histogram(
            "llm_proxy_token_fetch_seconds", "An access token fetch.", registry=registry, buckets=_FETCH_S
        )
        self._replays = Counter(
            "llm_proxy_token_replays_total", "Requests sent again with a new token.", registry=registry
        )

    def request_began(self) -> None:
        self._in_flight.inc()

    def request_ended(
        self,
        route: str,
        upstream: str,
        status: int,
        *,
        seconds: float,
        first_byte_s: float | None,
        overhead_s: float | None,
    ) -> None:
        """Count a request after its last byte. `route`: a template without a prefix; `-` for none, as for `upstream`.

        None is not counted: an answer without a byte, or without an upstream to compare with.
        """
        self._in_flight.dec()
        self._requests[route, upstream, status].inc()
        self._request_s.observe(seconds)
        if first_byte_s is not None:
            self._first_byte_s.observe(first_byte_s)
        if overhead_s is not None:
            self._overhead_s.observe(overhead_s)

    def stream_ended(self, end: str) -> None:
        """Count an event stream by how it ended: done, cut, caller_gone or timeout."""
        self._streams[end,].inc()

    def tokens_used(self, upstream: str, prompt: int, completion: int) -> None:
        self._tokens[upstream, "prompt"].inc(prompt)
        self._tokens[upstream, "completion"].inc(completion)

    def failed_over(self, upstream: str) -> None:
        """Count a request that this upstream did not take and another one was asked for."""
        self._fail_overs[upstream,].inc()

    def token_fetched(self, source: str, result: str, seconds: float) -> None:
        self._fetches[source, result].inc()
        self._fetch_s.observe(seconds)

    def token_replaced(self) -> None:
        self._replays.inc()

    def collect(self) -> Iterable[Metric]:
        """What all workers have counted together since the start; prometheus_client's collectors have this method."""
        return self._registry.collect() if self._folder is None else collect_shared(self._folder)


class _Children(dict[_Labels, Counter]):
    """A counter's children by their label values: looking one up in the library costs more than counting.

    At most so many: what would be one more is counted under `-`.
    """

    def __init__(self, counter: Counter, known: Iterable[_Labels] = (), *, most: int | None = None) -> None:
        super().__init__({labels: counter.labels(*labels) for labels in known})  # shown as 0 from the start on
        self._counter = counter
        self._most = len(self) if most is None else most

    def __missing__(self, labels: _Labels) -> Counter:
        if len(self) >= self._most:
            return self._counter.labels(*("-" for _ in labels))
        child = self[labels] = self._counter.labels(*labels)
        return child
