"""A request's facts as a span: names and values, whose trace it is part of, and what the upstream gets of it."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from proxy.observability.request_log import NAME_MOST_CHARS, RequestLog
from proxy.observability.tracing import Tracing, operation_of

ENVIRON = {"wsgi.url_scheme": "http", "SERVER_NAME": "10.0.0.5", "SERVER_PORT": "5002"}
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Spans:
    """Tracing whose spans stay here."""

    def __init__(self) -> None:
        self._ended = InMemorySpanExporter()
        self._provider = TracerProvider(shutdown_on_exit=False)
        self._provider.add_span_processor(SimpleSpanProcessor(self._ended))
        self.tracing = Tracing(self._provider)

    def of(self, log: RequestLog, environ: dict[str, Any] | None = None, **facts: Any) -> ReadableSpan:
        """The span of a request that ends with these facts."""
        end = self.tracing.begin({**ENVIRON} if environ is None else environ, log)
        for name, value in facts.items():
            setattr(log, name, value)
        end()
        [span] = self._ended.get_finished_spans()
        return span


@pytest.fixture
def spans() -> Iterator[Spans]:
    spans = Spans()
    yield spans
    spans.tracing.close()


def chat(route: str = "/v1/chat/completions", method: str = "POST") -> RequestLog:
    return RequestLog("id-1", method, route)


DONE: dict[str, Any] = {"caller": "ragflow", "model": "gpt-4o", "upstream": "llm", "status": 200, "bytes_sent": 12}


def test_whole_answer_has_these_attributes_and_no_others(spans: Spans) -> None:
    span = spans.of(chat(), **DONE, usage=(9, 0))
    assert (span.name, span.kind, span.status.status_code) == ("chat", SpanKind.SERVER, StatusCode.UNSET)
    assert dict(span.attributes or {}) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.usage.input_tokens": 9,
        "gen_ai.usage.output_tokens": 0,
        "openai.api.type": "chat_completions",
        "http.request.method": "POST",
        "http.response.body.size": 12,
        "http.response.status_code": 200,
        "http.route": "/v1/chat/completions",
        "server.address": "10.0.0.5",
        "server.port": 5002,
        "url.scheme": "http",
        "llm_proxy.caller": "ragflow",
        "llm_proxy.outcome": "done",
        "llm_proxy.request_id": "id-1",
        "llm_proxy.upstream": "llm",
    }


def test_stream_tells_its_frames_and_its_first_chunk(spans: Spans) -> None:
    log = chat()
    span = spans.of(log, **DONE, frames=7, first_byte_at=log.started + 0.25)
    attributes = span.attributes or {}
    assert attributes["gen_ai.request.stream"] is True
    assert attributes["gen_ai.response.time_to_first_chunk"] == pytest.approx(0.25)
    assert attributes["llm_proxy.frames"] == 7


def test_stream_without_a_byte_has_no_first_chunk(spans: Spans) -> None:
    span = spans.of(chat(), **DONE, frames=0, outcome="caller_gone")
    assert "gen_ai.response.time_to_first_chunk" not in (span.attributes or {})


@pytest.mark.parametrize(
    ("facts", "error_type", "code"),
    [
        pytest.param({"status": 200}, None, StatusCode.UNSET, id="good"),
        pytest.param({"status": 429, "outcome": "error"}, "429", StatusCode.UNSET, id="the caller's fault"),
        pytest.param({"status": 502, "outcome": "error", "cause": "refused"}, "502", StatusCode.ERROR, id="ours"),
        pytest.param({"status": 200, "outcome": "cut"}, "cut", StatusCode.ERROR, id="cut"),
        pytest.param({"status": 200, "outcome": "timeout"}, "timeout", StatusCode.ERROR, id="stalled"),
        pytest.param({"status": 0, "outcome": "cut"}, "cut", StatusCode.ERROR, id="ended by the worker"),
        pytest.param({"status": 200, "outcome": "caller_gone"}, None, StatusCode.UNSET, id="caller gone"),
        pytest.param({"status": 499, "outcome": "caller_gone"}, None, StatusCode.UNSET, id="gone before the answer"),
    ],
)
def test_error_is_told_by_its_kind_and_is_ours_where_the_log_warns(
    spans: Spans, facts: dict[str, Any], error_type: str | None, code: StatusCode
) -> None:
    span = spans.of(chat(), **facts)
    assert (span.attributes or {}).get("error.type") == error_type
    assert span.status.status_code == code
    assert span.status.description == facts.get("cause")


def test_request_that_was_refused_at_the_door_tells_what_is_known(spans: Spans) -> None:
    span = spans.of(chat(), status=401, outcome="error")
    assert not {"gen_ai.request.model", "llm_proxy.caller", "llm_proxy.upstream"} & set(span.attributes or {})


@pytest.mark.parametrize("upstream", ["-", "llm"], ids=["that no upstream serves", "of a wildcard"])
def test_model_is_told_and_names_no_span(spans: Spans, upstream: str) -> None:
    span = spans.of(chat(), model="any text", upstream=upstream)
    assert (span.name, (span.attributes or {})["gen_ai.request.model"]) == ("chat", "any text")


def test_model_is_cut_and_redacted_as_in_the_line(spans: Spans) -> None:
    span = spans.of(chat(), **{**DONE, "model": "Bearer s3cret " + "x" * 1000})
    model = str((span.attributes or {})["gen_ai.request.model"])
    assert "s3cret" not in model
    assert len(model) <= NAME_MOST_CHARS


@pytest.mark.parametrize(
    ("method", "path", "operation"),
    [
        ("POST", "/chat/completions", "chat"),
        ("POST", "/responses", "chat"),
        ("POST", "/completions", "text_completion"),
        ("POST", "/embeddings", "embeddings"),
        ("POST", "/images/generations", "generate_content"),
        ("POST", "/audio/speech", "generate_content"),
        ("POST", "/rerank", "rerank"),
        ("POST", "/moderations", "moderations"),
        ("GET", "/models", None),
        ("GET", "/models/<path:model>", None),
    ],
)
@pytest.mark.parametrize("prefix", ["", "/v1/v1", "/agent/api/llm_proxy/v1"])
def test_operation_is_the_routes_whatever_stands_before_it(
    method: str, path: str, operation: str | None, prefix: str
) -> None:
    assert operation_of(method, prefix + path) == operation


def test_list_of_models_is_a_plain_request(spans: Spans) -> None:
    span = spans.of(chat("/v1/models", "GET"), status=200)
    assert span.name == "GET /v1/models"
    assert not any(name.startswith("gen_ai") for name in span.attributes or {})


def test_callers_context_goes_on_as_the_spans_own(spans: Spans) -> None:
    given = {"HTTP_TRACEPARENT": f"00-{TRACE}-{PARENT}-01", "HTTP_TRACESTATE": "vendor=a"}
    environ = {**ENVIRON, **given}
    span = spans.of(chat(), environ)
    assert span.parent is not None
    assert span.context is not None
    assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE, PARENT)
    assert environ["HTTP_TRACEPARENT"] == f"00-{TRACE}-{span.context.span_id:016x}-01"
    assert environ["HTTP_TRACESTATE"] == "vendor=a"
    assert not span.context.trace_state
    assert not span.parent.trace_state


@pytest.mark.parametrize(
    "given",
    [None, "", "nonsense", f"00-{TRACE}-{PARENT}", f"ff-{TRACE}-{PARENT}-01", f"00-{TRACE}-{'0' * 16}-01"],
    ids=["none", "empty", "nonsense", "without flags", "of version ff", "of zeros"],
)
def test_context_that_cannot_be_read_begins_a_new_trace(spans: Spans, given: str | None) -> None:
    environ = {**ENVIRON, "HTTP_TRACESTATE": "vendor=a"}
    if given is not None:
        environ["HTTP_TRACEPARENT"] = given
    span = spans.of(chat(), environ)
    assert span.parent is None
    assert span.context is not None
    passed_on, _, flags = environ["HTTP_TRACEPARENT"].rpartition("-")
    assert passed_on == f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}"
    assert int(flags, 16) & 1
    assert "HTTP_TRACESTATE" not in environ


def test_span_begins_with_the_request_and_lasts_as_long(spans: Spans) -> None:
    log = chat()
    log.started -= 5.0  # it has run for so long already
    before_ns = time.time_ns()
    span = spans.of(log)
    assert span.start_time is not None
    assert span.end_time is not None
    assert abs(before_ns - span.start_time - 5e9) < 4e9
    assert 5e9 <= span.end_time - span.start_time < 9e9
