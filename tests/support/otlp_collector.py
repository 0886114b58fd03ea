"""A collector of OpenTelemetry spans on loopback: takes what OTLP/HTTP sends and reads it as protobuf."""

from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.scripted_upstream import ScriptedUpstream
from tests.support.waiting import wait_for

Span = Any  # protobuf makes its classes when they are imported

_ACCEPTED = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n"
_BATCHES_MOST = 1000


class OtlpCollector(ScriptedUpstream):
    """Accepts every batch; a plain ScriptedUpstream is one that never answers."""

    def __init__(self) -> None:
        super().__init__()
        for _ in range(_BATCHES_MOST):
            self.answer(_ACCEPTED)

    def received(self) -> bytes:
        """All that came, heads and bodies."""
        return b"\n".join(request.head + b"\n" + request.body for request in self.requests)

    def batches(self) -> list[ExportTraceServiceRequest]:
        for request in self.requests:
            assert request.head.startswith(b"POST /v1/traces HTTP/1.1\r\n")
        return [ExportTraceServiceRequest.FromString(request.body) for request in self.requests]

    def spans(self) -> list[Span]:
        return [
            span
            for batch in self.batches()
            for of_resource in batch.resource_spans
            for of_scope in of_resource.scope_spans
            for span in of_scope.spans
        ]

    def resource_of(self, request_id: str) -> dict[str, Any]:
        """What the process that sent a request's span says of itself; the span is here already."""
        [resource] = [
            attributes_of(of_resource.resource)
            for batch in self.batches()
            for of_resource in batch.resource_spans
            for of_scope in of_resource.scope_spans
            for span in of_scope.spans
            if attributes_of(span)["llm_proxy.request_id"] == request_id
        ]
        return resource

    def span_of(self, request_id: str) -> Span:
        """The one span of a request, once it is here."""

        def found() -> list[Span]:
            return [span for span in self.spans() if attributes_of(span)["llm_proxy.request_id"] == request_id]

        wait_for(lambda: bool(found()), 10)
        [span] = found()
        return span


def attributes_of(span: Span) -> dict[str, Any]:
    """Of a span, or of a resource."""
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}
