"""From a JSON request to the upstream that serves its model, and from its answer back: shared by the JSON routes."""

import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeVar

from proxy import sse
from proxy.blueprints.caller_body import read_bytes
from proxy.body import JsonBody, changed_members, read_body, rewrite
from proxy.caller_watch import CallerWatch
from proxy.errors import CallerGone, ModelNotAllowed, ProxyError, UpstreamUnavailable
from proxy.headers import Fields, answer_fields, request_fields
from proxy.lean_flask import LeanResponse as Response
from proxy.observability.request_log import RequestLog
from proxy.relay import PieceRelay, StreamRelay, read_or_relay
from proxy.request_state import RequestState, current
from proxy.routing import ModelMap, is_allowed, resolve
from proxy.upstreams.answer import Answer, read_whole
from proxy.upstreams.client import UpstreamClient
from proxy.upstreams.content import Content
from proxy.upstreams.embedding_batches import EmbeddingBatches
from proxy.upstreams.exchange import Exchange
from proxy.usage import read_usage

T = TypeVar("T")
JSON_FIELD = ("Content-Type", "application/json")
STREAM_FIELDS = [
    ("Content-Type", f"{sse.MEDIA_TYPE}; charset=utf-8"),
    ("Cache-Control", "no-cache"),
    ("X-Accel-Buffering", "no"),  # nginx would else hold frames back
]

# A completion and a response may be asked for as a stream; those of a completion alone have no names for their events.
Kind = Literal["completion", "response", "json", "binary"]


@dataclass(frozen=True, slots=True)
class Upstream:
    """One upstream as the views see it: whom it serves, how to ask it, and what the config changes on the way."""

    models: ModelMap
    client: UpstreamClient
    strip_fields: tuple[str, ...] = ()
    set_fields: dict[str, Any] = field(default_factory=dict)
    keepalive_s: float | None = None
    batches: EmbeddingBatches | None = None
    second: "Upstream | None" = None  # asked where this one takes nobody

    def members(self, body: JsonBody, model: str) -> dict[str, Any]:
        return changed_members(body, model=model, strip_fields=self.strip_fields, set_fields=self.set_fields)

    def content(self, body: JsonBody, model: str) -> bytes:
        return rewrite(body, model=model, strip_fields=self.strip_fields, set_fields=self.set_fields)


@dataclass(slots=True)
class Forward:
    """One caller's request, read, checked and routed."""

    state: RequestState
    body: JsonBody
    upstream: Upstream
    model: str  # the upstream's name for it
    fields: Fields
    exchange: Exchange

    def send(self, path: str) -> Answer:
        return self.ask(lambda: self.send_once(path))

    def ask(self, call: Callable[[], T]) -> T:
        """What `call` gets from the upstream, or from its second where the first takes nobody.

        Where that fails too, its error is the answer: it is the upstream that the log and the counts name, and what it
        says of the request (too long, not that model) is truer than the first's, which has not looked at it.
        """
        try:
            return call()
        except ProxyError as error:
            if self.exchange.broken_off:
                raise CallerGone from error
            if not (error.takes_nobody and self._turn_to_second()):
                raise
        return call()

    def send_once(self, path: str, content: Content | None = None) -> Answer:
        """`content`: what goes instead of the JSON body, and must be given where there is none."""
        if content is None:
            if not self.body.raw:
                raise ValueError("no content, and no JSON body to take its place")
            content = self.upstream.content(self.body, self.model)
        sent_at = time.monotonic()
        client = self.upstream.client
        answer = client.send("POST", path, content=content, fields=self.fields, exchange=self.exchange)
        self.state.log.sent_at = sent_at
        return answer

    def _turn_to_second(self) -> bool:
        """Whether there is one that serves the model; it is the upstream from here on."""
        second = self.upstream.second
        model = None if second is None else second.models.resolve(self.body.model)
        if second is None or model is None:
            return False
        log = self.state.log
        log.failed_over_from, log.upstream = self.upstream.models.upstream, second.models.upstream
        self.upstream, self.model = second, model
        return True


class Forwarder:
    """Reads and routes the requests of all JSON routes of a worker."""

    def __init__(self, upstreams: Sequence[Upstream], watch: CallerWatch, *, max_body_bytes: int) -> None:
        self._maps = [upstream.models for upstream in upstreams]
        self._by_name = {upstream.models.upstream: upstream for upstream in upstreams}
        self._watch = watch
        self._max_body_bytes = max_body_bytes

    def accept(self) -> Forward:
        """The current request, ready to be sent. Raises RequestErrors; from here on a caller that leaves is seen."""
        return self.route(read_body(read_bytes(current(), self._max_body_bytes)), JSON_FIELD)

    def route(self, body: JsonBody, content_type: tuple[str, str]) -> Forward:
        """The current request with a body that is read, ready to be sent; as accept()."""
        state = current()
        if state.caller is not None and not is_allowed(state.caller.models, body.model):
            raise ModelNotAllowed("This API key may not use this model.", param="model")
        name, model = resolve(self._maps, body.model)
        state.log.model = body.model  # not before: what nobody serves may be any text, a key or a prompt
        state.log.upstream = name
        exchange = Exchange()
        self.watch_caller(exchange)
        fields = [content_type, *request_fields(state.environ)]
        return Forward(state, body, self._by_name[name], model, fields, exchange)

    def watch_caller(self, exchange: Exchange) -> None:
        """Break the exchange off when the caller goes away, until the request's end."""
        state = current()
        sock: socket.socket | None = state.environ.get("gunicorn.socket")
        if sock is not None:
            self._watch.watch(sock, exchange.break_off)
            state.at_end.append(lambda: self._watch.unwatch(sock))

    def unwatch_caller(self) -> None:
        """To be called where its body is to be read no further: half closed by us, it would pass for gone."""
        sock = current().environ.get("gunicorn.socket")
        if sock is not None:
            self._watch.unwatch(sock)

    def forward(self, path: str, *, kind: Kind = "json", convert: Callable[[bytes], bytes] | None = None) -> Response:
        """Accept the current request, send it to `path` of its upstream and answer with what comes back."""
        accepted = self.accept()
        return respond(accepted, accepted.send(path), kind=kind, convert=convert)


def respond(
    accepted: Forward, answer: Answer, *, kind: Kind = "json", convert: Callable[[bytes], bytes] | None = None
) -> Response:
    """The upstream's good answer as ours: a stream as frames, a binary body in pieces, JSON whole.

    `convert` changes a whole JSON body. Raises UpstreamUnavailable for an answer that is neither.
    """
    content_type, fields = _split_content_type(answer_fields(answer.fields))
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == sse.MEDIA_TYPE:
        named = kind != "completion"
        relay = StreamRelay(answer, keepalive_s=accepted.upstream.keepalive_s, named=named)
        return Response(relay, status=answer.status, headers=[*STREAM_FIELDS, *fields])
    if kind == "binary" and media_type == "text/html":
        answer.close()
        raise UpstreamUnavailable(cause="the answer is a page")
    # Where the upstream names no type werkzeug would call it HTML.
    if kind == "binary":
        content_type = content_type or "application/octet-stream"
        return Response(PieceRelay(answer), status=answer.status, headers=[("Content-Type", content_type), *fields])
    body = read_or_relay(answer) if convert is None else convert(read_whole(answer))
    streamed = accepted.body.stream and kind in ("completion", "response")
    if isinstance(body, PieceRelay):
        try:
            start = b"".join(body.start) if streamed else body.start[0]
            _check_json(start, content_type, streamed=streamed)
        except UpstreamUnavailable:
            body.close()
            raise
    else:
        _check_json(body, content_type, streamed=streamed)
        accepted.state.log.received_at = time.monotonic()
        note_usage(accepted.state, body)
    content_type = content_type or "application/json"
    return Response(body, status=answer.status, headers=[("Content-Type", content_type), *fields])


def note_usage(state: RequestState, body: bytes) -> None:
    """Let the log and the counts have what the answer took. At the end, as nobody waits for it then."""
    state.at_end.append(partial(_read_usage, state.log, body))


def _read_usage(log: RequestLog, body: bytes) -> None:
    log.usage = read_usage(body)


def _split_content_type(fields: Fields) -> tuple[str, Fields]:
    others = [field for field in fields if field[0].lower() != "content-type"]
    return next((value for name, value in fields if name.lower() == "content-type"), ""), others


def _check_json(body: bytes, content_type: str, *, streamed: bool) -> None:
    """A page of a login portal or a load balancer comes with 200 too, and no client can read it."""
    start = body.lstrip()[:1]
    if start not in (b"{", b"[") and (start in (b"", b"<") or "json" not in content_type.lower()):
        raise UpstreamUnavailable(cause="the answer is no JSON")
    if streamed and b'"choices"' not in body and b'"output"' not in body:
        raise UpstreamUnavailable(cause="neither a stream nor a completion where a stream was asked for")
