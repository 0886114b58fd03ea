"""OpenTelemetry: one span for each request of the API, joined to the caller's trace and handed on to the upstream.

Imported only where the config switches it on; the packages are an extra (requirements-otel.txt). `hooks` calls it once
a caller is known and at the request's end, never in between. `span_export` sends what is made here.

The span tells what the access line tells, so no prompt, answer, key or token, no path and no field that a caller chose
but the request's id; which names it may have is known before any request. Its kind is SERVER, as it is about a caller's
request, with or without an upstream behind it; the attributes are the conventions' for HTTP servers and, in development
there, for generative AI (`gen_ai.*`, `openai` as what is spoken): https://opentelemetry.io/docs/specs/semconv/. What
they have no name for is under `llm_proxy.`.
"""

import time
from collections.abc import Callable, MutableMapping
from functools import lru_cache, partial
from typing import Any, TypeAlias

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from proxy.observability.request_log import RequestLog

Attributes: TypeAlias = dict[str, str | int | float | bool]

# By how a route ends, the first that fits. Other routes that take a model are named by their last word, as the
# conventions allow.
_OPERATIONS = {
    "/chat/completions": "chat",
    "/responses": "chat",
    "/completions": "text_completion",
    "/embeddings": "embeddings",
    "/images/generations": "generate_content",
    "/audio/speech": "generate_content",
}
_API_TYPES = {"/chat/completions": "chat_completions", "/responses": "responses"}


class Tracing:
    """The spans of one worker."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("llm_proxy")
        self._context = TraceContextTextMapPropagator()

    def begin(self, environ: MutableMapping[str, Any], log: RequestLog) -> Callable[[], None]:
        """Start a request's span and put its context in the place of the caller's; what to call when `log` is whole.

        `environ` is WSGI's. A context that came and cannot be read begins a new trace, as W3C says. The caller's
        `tracestate` goes to the upstream alone: it may hold any text, and the collector would get it with the span.
        """
        parent = self._context.extract({"traceparent": environ.pop("HTTP_TRACEPARENT", "")})
        if not parent:
            environ.pop("HTTP_TRACESTATE", None)
        began_ns = time.time_ns() - _nanoseconds(time.monotonic() - log.started)
        span = self._tracer.start_span(
            span_name(log),
            parent,
            SpanKind.SERVER,
            start_attributes(log, environ),
            start_time=began_ns,
        )
        passed_on: dict[str, str] = {}
        self._context.inject(passed_on, set_span_in_context(span))
        environ.update({f"HTTP_{name.upper()}": value for name, value in passed_on.items()})
        return partial(_end, span, log, began_ns)

    def close(self) -> None:
        """Send what has not been sent, for as long as the provider's exporter takes at most."""
        self._provider.shutdown()


def _end(span: Span, log: RequestLog, began_ns: int) -> None:
    if span.is_recording():
        span.set_attributes(end_attributes(log))
        if log.level == "WARNING":
            span.set_status(Status(StatusCode.ERROR, log.cause or None))
    # By the monotonic clock: a step of the other one must not make it longer, or shorter than nothing.
    span.end(began_ns + _nanoseconds(time.monotonic() - log.started))


def span_name(log: RequestLog) -> str:
    """Without the model, which may be any text where an upstream serves `*`."""
    return operation_of(log.method, log.route) or f"{log.method} {log.route}"


def start_attributes(log: RequestLog, environ: MutableMapping[str, Any]) -> Attributes:
    """What is known at a request's begin, when a sampler may ask for it."""
    attributes: Attributes = {
        "http.request.method": log.method,
        "http.route": log.route,
        "url.scheme": environ["wsgi.url_scheme"],
        "server.address": environ["SERVER_NAME"],
        "server.port": int(environ["SERVER_PORT"]),
        "llm_proxy.request_id": log.request_id,
    }
    operation = operation_of(log.method, log.route)
    if operation is not None:
        attributes |= {"gen_ai.operation.name": operation, "gen_ai.provider.name": "openai"}
    api_type = next((name for path, name in _API_TYPES.items() if log.route.endswith(path)), None)
    return attributes if api_type is None else attributes | {"openai.api.type": api_type}


def end_attributes(log: RequestLog) -> Attributes:
    """What is known when its last byte is out, or the caller is gone."""
    facts = log.facts()
    stream_first_s = None if log.frames is None or log.first_byte_at is None else log.first_byte_at - log.started
    found = {
        "http.response.status_code": log.status or None,
        "http.response.body.size": log.bytes_sent,
        "error.type": _error_type(log),
        "gen_ai.request.model": _known(facts["model"]),
        "gen_ai.request.stream": None if log.frames is None else True,
        "gen_ai.response.time_to_first_chunk": stream_first_s,
        "gen_ai.usage.input_tokens": facts["prompt_tokens"],
        "gen_ai.usage.output_tokens": facts["completion_tokens"],
        "llm_proxy.caller": _known(log.caller),
        "llm_proxy.upstream": _known(log.upstream),
        "llm_proxy.outcome": log.outcome,
        "llm_proxy.frames": log.frames,
    }
    return {name: value for name, value in found.items() if value is not None}


@lru_cache(maxsize=256)
def operation_of(method: str, route: str) -> str | None:
    """The generative act of a route, whatever stands before it; None for the lists of models."""
    if method != "POST":
        return None
    return next((name for path, name in _OPERATIONS.items() if route.endswith(path)), route.rpartition("/")[2])


def _error_type(log: RequestLog) -> str | None:
    """How a stream ended, where it broke off, else the status; a caller that left is no error."""
    if log.outcome in ("cut", "timeout"):
        return log.outcome
    return str(log.status) if log.outcome == "error" and log.status >= 400 else None


def _known(text: str) -> str | None:
    return None if text == "-" else text


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
