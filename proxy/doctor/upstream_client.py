"""Asks an upstream with the proxy's own transport and request, so that the bytes are those of the proxy.

Without its client: that one turns refusals into the proxy's errors, and replaces a refused token.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx2

from config.upstreams import Upstream
from proxy.body import read_body, rewrite
from proxy.tokens.token import Token
from proxy.upstream_clients import upstream_http_proxy, upstream_settings, upstream_tls
from proxy.upstreams.answer_body import AnswerBody, Timeouts
from proxy.upstreams.exchange import Exchange
from proxy.upstreams.request_builder import RequestBuilder
from proxy.upstreams.transport import SocketTransport

# At most, where callers may wait for longer: somebody sits before this.
FIRST_BYTE_S = 60.0
IDLE_S = 30.0
TOTAL_S = 90.0
ANSWER_MOST_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """An upstream's answer. `body` is whole, or empty where `stream` is still to be read and closed."""

    status: int
    fields: httpx2.Headers
    begun_at: float  # of the monotonic clock: when the request was sent
    took_s: float  # from there to the head of the answer
    body: bytes
    stream: AnswerBody | None = None

    @property
    def content_type(self) -> str:
        return str(self.fields.get("Content-Type", ""))


class DoctorClient:
    """One upstream, asked with one token."""

    def __init__(self, section: Upstream, token: Token | None) -> None:
        self._section = section
        self._token = token
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
        return self._send("GET", path, b"", {})

    def post(self, path: str, members: Mapping[str, Any]) -> Answer:
        """Send a JSON body of these members and of what strip_fields and set_fields make of them.

        A good answer to `"stream": true` comes unread.
        """
        body = read_body(json.dumps(members).encode())
        strip, added = self._section.strip_fields, self._section.set_fields
        content = rewrite(body, model=body.model, strip_fields=strip, set_fields=added)
        return self._send("POST", path, content, {"Content-Type": "application/json"}, unread=body.stream)

    def close(self) -> None:
        self._transport.close()

    def _send(self, method: str, path: str, content: bytes, sent: dict[str, str], *, unread: bool = False) -> Answer:
        head = self._builder.head(method, path, content, list(sent.items()), self._token)
        begun_at = time.monotonic()
        stream = self._transport.send(method, head, content, Exchange())
        took_s = time.monotonic() - begun_at
        fields = httpx2.Headers([(name.encode("latin-1"), value.encode("latin-1")) for name, value in stream.fields])
        if unread and 200 <= stream.status < 300:
            return Answer(stream.status, fields, begun_at, took_s, b"", stream)
        return Answer(stream.status, fields, begun_at, took_s, _read(stream))


def _read(stream: AnswerBody) -> bytes:
    """The body, or as much of it as any check needs."""
    body = bytearray()
    try:
        while len(body) < ANSWER_MOST_BYTES and (data := stream.read()):
            body += data
    finally:
        stream.close(keep=False)
    return bytes(body)
