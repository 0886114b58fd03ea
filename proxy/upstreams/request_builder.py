"""Requests to one upstream: whose fields, whose token, and which bytes; no connection and no I/O."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import httpx2

from proxy.headers import Fields
from proxy.tokens.token import Token
from proxy.upstreams.answer_body import Timeouts
from proxy.upstreams.content import Content

K = TypeVar("K")
V = TypeVar("V")
KEPT_MOST = 256  # paths: an adapter's may hold the model, whose name is the caller's to choose


@dataclass(frozen=True, slots=True)
class UpstreamSettings:
    """What both clients of one upstream need to know."""

    base_url: str
    token_header: str = "Authorization"
    token_prefix: str = "Bearer"
    fields: Mapping[str, str] = field(default_factory=dict, repr=False)
    renew_on: frozenset[int] = frozenset({401})
    timeouts: Timeouts = field(default_factory=Timeouts)


class RequestBuilder:
    """Makes them, and judges which answers refuse the token."""

    def __init__(self, settings: UpstreamSettings) -> None:
        self._settings = settings
        self._base_url = settings.base_url.rstrip("/")
        self._urls: dict[str, httpx2.URL] = {}
        self._fields: Fields = [
            *settings.fields.items(),
            ("Accept", "*/*"),
            ("Accept-Encoding", "identity"),  # frames are looked at on the way, so they must come unpacked
            ("User-Agent", "llm-proxy"),
        ]
        self._heads: dict[tuple[str, str], tuple[Token | None, bytes]] = {}

    def request(self, method: str, path: str, content: bytes, fields: Fields, token: Token | None) -> httpx2.Request:
        """A request of httpx2's, for a transport of its."""
        fields = [*self._fields, *self._token_field(token), *fields]
        return httpx2.Request(method, self.url(path), headers=fields, content=content)

    def head(self, method: str, path: str, content: Content, fields: Fields, token: Token | None) -> bytes:
        """The same request's head as bytes. No line end hides in its fields: they are ours or were checked."""
        lines = [self._head_start(method, path, token)]
        lines += [_line(*field) for field in fields]
        if content or method != "GET":
            length = len(content) if isinstance(content, bytes) else content.length
            lines.append(b"Transfer-Encoding: chunked\r\n" if length is None else b"Content-Length: %d\r\n" % length)
        return b"".join([*lines, b"\r\n"])

    def url(self, path: str) -> httpx2.URL:
        url = self._urls.get(path)
        if url is None:
            url = keep(self._urls, path, httpx2.URL(self._base_url + path))
        return url

    def refuses_token(self, response: httpx2.Response) -> bool:
        """Whether the answer is about our token: a listed status, or RFC 6750 §3.1's invalid_token."""
        if response.status_code in self._settings.renew_on:
            return True
        return response.status_code == 403 and says_invalid_token(response)

    def _head_start(self, method: str, path: str, token: Token | None) -> bytes:
        """The lines that are the same for all requests with one token, made once per token."""
        held, start = self._heads.get((method, path), (None, b""))
        if held is not token or not start:
            url = self.url(path)
            lines = [b"%s %s HTTP/1.1\r\nHost: %s\r\n" % (method.encode("ascii"), url.raw_path, url.netloc)]
            lines += [_line(*field) for field in (*self._fields, *self._token_field(token))]
            start = b"".join(lines)
            keep(self._heads, (method, path), (token, start))
        return start

    def _token_field(self, token: Token | None) -> Fields:
        if token is None:
            return []
        return [(self._settings.token_header, f"{self._settings.token_prefix} {token.value}".strip())]


def keep(held: dict[K, V], key: K, value: V) -> V:
    """The value, which is held from now on. All others are dropped before they become too many."""
    if len(held) >= KEPT_MOST and key not in held:
        held.clear()
    held[key] = value
    return value


def _line(name: str, value: str) -> bytes:
    return f"{name}: {value}\r\n".encode("latin-1")


def says_invalid_token(response: httpx2.Response) -> bool:
    return 'error="invalid_token"' in response.headers.get("WWW-Authenticate", "")
