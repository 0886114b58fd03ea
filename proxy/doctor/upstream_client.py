"""Asks an upstream with the proxy's own transport and request, so that the bytes are those of the proxy.

Without its client: that one turns refusals into the proxy's errors, and replaces a refused token.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import httpx2

from config.upstreams import Upstream
from proxy.adapters.call import AdaptedCall, GuardedConverter, is_event_stream, with_type
from proxy.body import read_body, rewrite
from proxy.errors import UpstreamAnswer
from proxy.headers import Fields
from proxy.tokens.token import Token
from proxy.upstream_clients import upstream_adapter, upstream_http_proxy, upstream_settings, upstream_tls
from proxy.upstreams.answer_body import Timeouts
from proxy.upstreams.exchange import Exchange
from proxy.upstreams.request_builder import RequestBuilder
from proxy.upstreams.transport import SocketTransport

# At most, where callers may wait for longer: somebody sits before this.
FIRST_BYTE_S = 60.0
IDLE_S = 30.0
TOTAL_S = 90.0
ANSWER_MOST_BYTES = 4 * 1024 * 1024
JSON_FIELD = ("Content-Type", "application/json")


class Stream(Protocol):
    """A body that is read as it comes."""

    def read(self) -> bytes | None: ...
    def close(self, *, keep: bool = True) -> None: ...


@dataclass(frozen=True, slots=True)
class Answer:
    """An upstream's answer. `body` is whole, or empty where `stream` is still to be read and closed."""

    status: int
    fields: httpx2.Headers
    begun_at: float  # of the monotonic clock: when the request was sent
    took_s: float  # from there to the head of the answer
    body: bytes
    stream: Stream | None = None

    @property
    def content_type(self) -> str:
        return str(self.fields.get("Content-Type", ""))


class DoctorClient:
    """One upstream, asked with one token."""

    def __init__(self, section: Upstream, token: Token | None) -> None:
        self._section = section
        self._token = token
        self._adapter = upstream_adapter(section)
        self._builder = RequestBuilder(upstream_settings(section))
        limits = section.timeouts
        self._transport = SocketTransport(
            httpx2.URL(section.base_url),
            tls=upstream_tls(section),
            timeouts=Timeouts(
                limits.connect_s,
                min(limits.first_byte_s, FIRST_BYTE_S),
                min(limits.idle_s, IDLE_S),
                min(limits.total_s, TOTAL_S),
            ),
            http_proxy=upstream_http_proxy(section),
        )

    def get(self, path: str) -> Answer:
        """Raises httpx2.TransportError, as does `post`."""
        return self._send("GET", path, b"", [])

    def post(self, path: str, members: Mapping[str, Any]) -> Answer:
        """Send a JSON body of these members and of what strip_fields and set_fields make of them.

        A good answer to `"stream": true` comes unread. Through an adapter it is as callers get it, and ProxyErrors are
        raised for what the adapter cannot turn.
        """
        body = read_body(json.dumps(members).encode())
        strip, added = self._section.strip_fields, self._section.set_fields
        content = rewrite(body, model=body.model, strip_fields=strip, set_fields=added)
        if self._adapter is not None:
            return self._adapted(AdaptedCall(self._adapter, path, content))
        return self._send("POST", path, content, [JSON_FIELD], unread=body.stream)

    def close(self) -> None:
        self._transport.close()

    def _adapted(self, call: AdaptedCall) -> Answer:
        answer = self._send("POST", call.path, call.content, [JSON_FIELD, *call.fields], unread=call.is_streamed)
        if not 200 <= answer.status < 300:
            error = call.error(UpstreamAnswer(answer.status, answer.fields.multi_items(), answer.body))
            return replace(answer, fields=httpx2.Headers(error.fields), body=error.body)
        if answer.stream is not None and is_event_stream(answer.content_type):
            return replace(answer, stream=_ConvertedStream(answer.stream, call.converter()))
        body = answer.body if answer.stream is None else _read(answer.stream)
        body, content_type = call.whole(body, answer.content_type)
        fields = httpx2.Headers(with_type(answer.fields.multi_items(), content_type))
        stream = _HeldStream(body) if call.is_streamed else None
        return replace(answer, fields=fields, body=b"" if stream else body, stream=stream)

    def _send(self, method: str, path: str, content: bytes, sent: Fields, *, unread: bool = False) -> Answer:
        head = self._builder.head(method, path, content, sent, self._token)
        begun_at = time.monotonic()
        stream = self._transport.send(method, head, content, Exchange())
        took_s = time.monotonic() - begun_at
        fields = httpx2.Headers([(name.encode("latin-1"), value.encode("latin-1")) for name, value in stream.fields])
        if unread and 200 <= stream.status < 300:
            return Answer(stream.status, fields, begun_at, took_s, b"", stream)
        return Answer(stream.status, fields, begun_at, took_s, _read(stream))


class _ConvertedStream:
    """An upstream's stream as its adapter turns it."""

    def __init__(self, stream: Stream, converter: GuardedConverter) -> None:
        self._stream = stream
        self._converter = converter

    def read(self) -> bytes:
        block = b""
        while not block and not self._converter.ended:
            data = self._stream.read()
            block = self._converter.feed(data) if data else self._converter.end()
        return block

    def close(self, *, keep: bool = True) -> None:
        self._stream.close(keep=keep)


class _HeldStream:
    """A stream that was made of a whole answer."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def read(self) -> bytes:
        body, self._body = self._body, b""
        return body

    def close(self, *, keep: bool = True) -> None:
        pass


def _read(stream: Stream) -> bytes:
    """The body, or as much of it as any check needs."""
    body = bytearray()
    try:
        while len(body) < ANSWER_MOST_BYTES and (data := stream.read()):
            body += data
    finally:
        stream.close(keep=False)
    return bytes(body)
