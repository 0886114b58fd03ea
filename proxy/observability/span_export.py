"""Where spans go: in batches to an OTLP collector over HTTP, by a thread of the worker's own.

The SDK's exporter sends. What the SDK would do in a child that the worker forks is left out, its batch processor with
it: it starts threads there, and under gevent, whose `subprocess` forks in Python, the worker's own requests then run in
the child until its program (a token source of type `command`) does. The processor may also hold up a worker's end for
half a minute.

The endpoint is the config's; service name, headers, certificate, sampler and limits are the SDK's to read from its
own OTEL_* variables. Proxies and .netrc of the environment do not count, as for everything else that is sent.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable

import requests
from loguru import logger
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

TRACES_PATH = "/v1/traces"
SEND_EVERY_S = 1.0
WAITING_MOST = 4096  # while the collector is away; then the oldest are lost
BATCH_MOST = 64  # to put one into bytes holds a gevent worker up: some milliseconds
LAST_WORDS_S = 2.0
_SEND_S = 5.0
_SDK_LOG = logging.getLogger("opentelemetry")


def build_provider(otlp_endpoint: str) -> TracerProvider:
    """Spans of this worker to a collector such as http://127.0.0.1:4318. Called after the fork; starts nothing yet."""
    _SDK_LOG.setLevel(logging.ERROR)  # its warnings tell of each try that failed
    session = requests.Session()
    session.trust_env = False
    exporter = OTLPSpanExporter(otlp_endpoint + TRACES_PATH, timeout=_SEND_S, session=session)
    provider = _Provider(resource=_resource(), shutdown_on_exit=False)
    provider.add_span_processor(SpanBatches(exporter))
    return provider


def _resource() -> Resource:
    resource = Resource.create()
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
        return resource.merge(Resource({SERVICE_NAME: "llm-proxy"}))
    return resource


class _Provider(TracerProvider):
    def _handle_fork(self) -> None:
        """Nothing: a child of a worker is another program at once."""


class SpanBatches(SpanProcessor):
    """Collects ended spans and sends them once a second, or as soon as there is a batch of them.

    That spans are lost is told once, and again when it is over or the worker ends, with how many they were.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._lock = threading.Lock()  # guards what is waiting and the counts
        self._waiting: deque[ReadableSpan] = deque(maxlen=WAITING_MOST)
        self._sending = self._lost = 0
        self._is_losing = False
        self._wake = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None

    def on_end(self, span: ReadableSpan) -> None:
        """Keep a span for the thread; called by requests, so it neither waits nor fails."""
        if span.context is None or not span.context.trace_flags.sampled:
            return
        with self._lock:
            is_full = len(self._waiting) == WAITING_MOST
            self._waiting.append(span)
            if self._thread is None:
                self._thread = _started(self._run)
        if is_full:
            self._lose(1, f"{WAITING_MOST} wait already")
        if len(self._waiting) >= BATCH_MOST:
            self._wake.set()

    def shutdown(self) -> None:
        """Send what is left, or give it up after LAST_WORDS_S: a worker's end has its limit."""
        self._closed = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(LAST_WORDS_S)
        self._exporter.shutdown()
        lost = self._lost + self._sending + len(self._waiting)
        if lost:
            logger.error("tracing: the worker ends, {} spans were lost", lost)

    def _run(self) -> None:
        while not self._closed:
            self._wake.clear()
            # Looked at after the clearing: who comes later sets it again.
            if len(self._waiting) < BATCH_MOST and not self._closed:
                self._wake.wait(SEND_EVERY_S)
            self._send()
        while self._waiting:
            self._send()

    def _send(self) -> None:
        """Send one batch."""
        with self._lock:
            batch = [self._waiting.popleft() for _ in range(min(BATCH_MOST, len(self._waiting)))]
            self._sending = len(batch)
        if not batch:
            return
        fault = self._export(batch)
        self._sending = 0
        if fault:
            self._lose(len(batch), fault)
        elif self._is_losing and len(self._waiting) < BATCH_MOST:
            self._recover()

    def _export(self, batch: list[ReadableSpan]) -> str:
        """What went wrong, or nothing."""
        try:
            result = self._exporter.export(batch)
        except Exception as error:  # not one that the exporter knows; the next batch may fare better
            return type(error).__name__
        return "" if result is SpanExportResult.SUCCESS else "the collector does not take them"

    def _lose(self, count: int, reason: str) -> None:
        with self._lock:
            self._lost += count
            is_told, self._is_losing = self._is_losing, True
        if not is_told:
            logger.error("tracing: spans are lost: {}", reason)
            _SDK_LOG.setLevel(logging.CRITICAL)  # it would say so of each batch

    def _recover(self) -> None:
        with self._lock:
            lost, self._lost, self._is_losing = self._lost, 0, False
        logger.info("tracing: spans are sent again, {} were lost", lost)
        _SDK_LOG.setLevel(logging.ERROR)


def _started(run: Callable[[], None]) -> threading.Thread | None:
    """None where the system has no thread left; the next span tries again."""
    thread = threading.Thread(target=run, name="spans", daemon=True)
    try:
        thread.start()
    except RuntimeError:
        return None
    return thread
