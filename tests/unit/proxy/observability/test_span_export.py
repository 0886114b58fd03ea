"""Spans on their way out: in batches, in turn, and never in the way of a request or of a worker's end.

What is lost is told once, however many batches or spans it is.
"""

import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence

import pytest
from loguru import logger
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from proxy.observability import span_export
from proxy.observability.span_export import BATCH_MOST, WAITING_MOST, SpanBatches, build_provider
from tests.support.proxy_process import ROOT
from tests.support.waiting import wait_for

LIMIT_S = 10.0

# A worker that starts programs while others of its greenlets are ready to go on; tells how often one did in a child.
FORKING = """
from gevent import monkey

monkey.patch_all()

import os, subprocess, threading, time
from proxy.observability.span_export import build_provider

provider, worker = build_provider("http://127.0.0.1:9"), os.getpid()
provider.get_tracer("test").start_span("a").end()
told, tell = os.pipe()


def go_on():
    while True:
        if os.getpid() != worker:
            os.write(tell, b".")
        time.sleep(0)


for _ in range(5):
    threading.Thread(target=go_on, daemon=True).start()
for _ in range(5):
    subprocess.run(["true"])
os.set_blocking(told, False)
try:
    print(len(os.read(told, 65536)), flush=True)
except BlockingIOError:
    print(0, flush=True)
os._exit(0)
"""


class FakeExporter(SpanExporter):
    """Keeps what it is given; can be told to fail once, or to hang until it is let go."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.shut = 0
        self.fails: list[Exception | None] = []  # None: it says so by its result
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.called = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.called.set()
        assert self.may_go_on.wait(LIMIT_S)
        if self.fails:
            fault = self.fails.pop()
            if fault is not None:
                raise fault
            return SpanExportResult.FAILURE
        self.batches.append([span.name for span in spans])
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self.shut += 1

    @property
    def names(self) -> list[str]:
        return [name for batch in self.batches for name in batch]


@pytest.fixture
def exporter() -> FakeExporter:
    return FakeExporter()


@pytest.fixture
def provider(exporter: FakeExporter) -> TracerProvider:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SpanBatches(exporter))
    return provider


@pytest.fixture
def told() -> Iterator[list[str]]:
    """What was logged: level and text."""
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line).strip()), format="{level} {message}")
    yield lines
    logger.remove(sink)


def make(provider: TracerProvider, count: int, first: int = 0) -> list[str]:
    names = [str(number) for number in range(first, first + count)]
    for name in names:
        provider.get_tracer("test").start_span(name).end()
    return names


def test_what_is_left_is_sent_in_turn_when_the_worker_ends(provider: TracerProvider, exporter: FakeExporter) -> None:
    names = make(provider, 3 * BATCH_MOST + 1)
    provider.shutdown()
    assert exporter.names == names
    assert max(map(len, exporter.batches)) <= BATCH_MOST
    assert exporter.shut == 1


def test_full_batch_is_sent_without_waiting_for_the_next_second(
    provider: TracerProvider, exporter: FakeExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(span_export, "SEND_EVERY_S", 3600.0)
    make(provider, BATCH_MOST)
    assert exporter.called.wait(LIMIT_S)
    provider.shutdown()


def test_spans_that_come_while_a_batch_is_sent_wait_for_the_next(
    provider: TracerProvider, exporter: FakeExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(span_export, "SEND_EVERY_S", 3600.0)
    exporter.may_go_on.clear()
    make(provider, BATCH_MOST)
    assert exporter.called.wait(LIMIT_S)
    make(provider, BATCH_MOST - 1)
    exporter.may_go_on.set()
    wait_for(lambda: len(exporter.batches) == 1, LIMIT_S)
    make(provider, 1)
    wait_for(lambda: len(exporter.batches) == 2, LIMIT_S)
    provider.shutdown()
    assert [len(batch) for batch in exporter.batches] == [BATCH_MOST, BATCH_MOST]


def test_no_thread_runs_before_the_first_span(provider: TracerProvider, exporter: FakeExporter) -> None:
    threads = threading.active_count()
    SpanBatches(exporter).shutdown()
    assert threading.active_count() == threads


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        pytest.param(UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates"), "UnicodeEncodeError", id="unforeseen"),
        pytest.param(None, "the collector does not take them", id="refused"),
    ],
)
def test_batch_that_cannot_be_sent_is_lost_alone_and_told(
    provider: TracerProvider,
    exporter: FakeExporter,
    monkeypatch: pytest.MonkeyPatch,
    told: list[str],
    fault: Exception | None,
    text: str,
) -> None:
    monkeypatch.setattr(span_export, "SEND_EVERY_S", 3600.0)
    exporter.fails.append(fault)
    exporter.may_go_on.clear()
    make(provider, BATCH_MOST)
    assert exporter.called.wait(LIMIT_S)
    left = make(provider, 1, BATCH_MOST)
    exporter.may_go_on.set()
    provider.shutdown()
    assert exporter.names == left
    assert told == [
        f"ERROR tracing: spans are lost: {text}",
        f"INFO tracing: spans are sent again, {BATCH_MOST} were lost",
    ]


def test_loss_is_told_once_while_it_lasts_and_summed_up_at_the_end(
    provider: TracerProvider, exporter: FakeExporter, told: list[str]
) -> None:
    exporter.fails += [None] * 5
    make(provider, 5 * BATCH_MOST)
    provider.shutdown()
    assert exporter.names == []
    assert told == [
        "ERROR tracing: spans are lost: the collector does not take them",
        f"ERROR tracing: the worker ends, {5 * BATCH_MOST} spans were lost",
    ]


def test_spans_wait_for_a_thread_where_none_is_to_be_had(
    provider: TracerProvider, exporter: FakeExporter, monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        first = make(provider, 3)
    later = make(provider, 1, 3)
    provider.shutdown()
    assert exporter.names == first + later
    assert told == []


def test_spans_that_never_got_a_thread_are_told(
    provider: TracerProvider, exporter: FakeExporter, monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    monkeypatch.setattr(span_export, "_started", lambda _: None)
    make(provider, 3)
    provider.shutdown()
    assert told == ["ERROR tracing: the worker ends, 3 spans were lost"]


def test_the_newest_wait_while_nobody_takes_them_and_the_others_are_counted(
    provider: TracerProvider, exporter: FakeExporter, monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    monkeypatch.setattr(span_export, "SEND_EVERY_S", 3600.0)
    exporter.may_go_on.clear()
    first = make(provider, BATCH_MOST)
    assert exporter.called.wait(LIMIT_S)
    later = make(provider, WAITING_MOST + 2, BATCH_MOST)
    exporter.may_go_on.set()
    provider.shutdown()
    assert exporter.names == first + later[2:]
    assert told == [
        f"ERROR tracing: spans are lost: {WAITING_MOST} wait already",
        "INFO tracing: spans are sent again, 2 were lost",
    ]


def test_end_of_a_worker_does_not_wait_for_a_collector_that_hangs(
    provider: TracerProvider, exporter: FakeExporter, monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    monkeypatch.setattr(span_export, "LAST_WORDS_S", 0.01)
    exporter.may_go_on.clear()
    make(provider, 1)
    provider.shutdown()
    assert exporter.names == []
    assert told == ["ERROR tracing: the worker ends, 1 spans were lost"]
    exporter.may_go_on.set()


def test_span_that_is_not_recorded_is_not_sent(exporter: FakeExporter) -> None:
    provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    provider.add_span_processor(SpanBatches(exporter))
    make(provider, 3)
    provider.shutdown()
    assert exporter.names == []


def test_nothing_of_a_worker_runs_in_a_child_that_it_forks() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", FORKING], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert ran.stdout == "0\n"


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        pytest.param({}, "llm-proxy", id="none given"),
        pytest.param({"OTEL_SERVICE_NAME": "gateway"}, "gateway", id="by its variable"),
        pytest.param({"OTEL_RESOURCE_ATTRIBUTES": "service.name=gateway"}, "gateway", id="among the attributes"),
    ],
)
def test_service_is_named_by_the_operator_or_after_the_proxy(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], name: str
) -> None:
    for variable in ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in environ.items():
        monkeypatch.setenv(variable, value)
    provider = build_provider("http://127.0.0.1:9")
    assert provider.resource.attributes["service.name"] == name
    provider.shutdown()
