"""What leaves for an upstream, byte by byte, and what of the openai SDK is left out on the way there."""

import asyncio
import hashlib
import inspect
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from openai import AsyncOpenAI, OpenAI, _compat
from openai._models import FinalRequestOptions

from proxy.errors import UpstreamAnswer
from proxy.headers import Fields
from proxy.tokens.token import Token
from proxy.upstreams.answer_body import JOINED_MOST_BYTES, Timeouts
from proxy.upstreams.client import (
    AsyncUpstreamClient,
    UpstreamClient,
    UpstreamOptions,
)
from proxy.upstreams.exchange import Exchange
from proxy.upstreams.request_builder import RequestBuilder, UpstreamSettings
from proxy.upstreams.transport import SocketTransport, _head_of
from tests.support.scripted_upstream import Received, ScriptedUpstream

CHAT = "/chat/completions"
JSON: Fields = [("Content-Type", "application/json")]
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
COOKIES = OK.replace(b"\r\n\r\n", b"\r\nSet-Cookie: session=1; Path=/\r\nSet-Cookie: b=2\r\n\r\n")


def token_of(value: str) -> Token:
    return Token(value, fetched_at=0.0, lifetime_s=300.0, generation=1)


ONE, OTHER = token_of("token-one"), token_of("token-other")


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as upstream:
        yield upstream


@pytest.fixture
def client(upstream: ScriptedUpstream) -> Iterator[UpstreamClient]:
    settings = UpstreamSettings(base_url=upstream.url + "/v1")
    transport = SocketTransport(httpx2.URL(settings.base_url), tls=None, timeouts=Timeouts())
    with UpstreamClient(settings, None, transport) as client:
        yield client


def send(client: UpstreamClient, method: str = "POST", content: bytes = b"{}", fields: Fields = JSON) -> bytes:
    answer = client.send(method, CHAT, content=content, fields=fields, exchange=Exchange())
    body = b""
    while data := answer.read():
        body += data
    return body


def names_of(received: Received) -> list[str]:
    return [line.partition(b":")[0].decode().lower() for line in received.head.split(b"\r\n")[1:]]


# Hooks of the SDK


@pytest.mark.parametrize("owner", [OpenAI, AsyncOpenAI])
@pytest.mark.parametrize(
    ("hook", "parameters"),
    [
        ("_prepare_options", ["self", "options"]),
        ("_prepare_request", ["self", "request"]),
        ("_custom_auth", ["self", "security"]),
        ("_make_status_error_from_response", ["self", "response"]),
    ],
)
def test_a_hook_that_does_nothing_here_has_the_parameters_that_we_override(
    owner: Any, hook: str, parameters: list[str]
) -> None:
    assert list(inspect.signature(getattr(owner, hook)).parameters) == parameters


def test_a_request_passes_each_hook_once(
    upstream: ScriptedUpstream, client: UpstreamClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    hooks = ["_prepare_options", "_build_request", "_prepare_request", "_custom_auth", "_send_request"]
    passed: list[str] = []
    for hook in hooks:
        original = getattr(client, hook)

        def record(*args: Any, _original: Any = original, _hook: str = hook, **kwargs: Any) -> Any:
            passed.append(_hook)
            return _original(*args, **kwargs)

        monkeypatch.setattr(client, hook, record)
    upstream.answer(OK)
    assert send(client) == b"{}"
    assert passed == hooks


def test_the_sdk_copies_options_by_the_method_that_we_override() -> None:
    options = UpstreamOptions.prepare("POST", CHAT).of(b"{}", JSON, Exchange())
    assert _compat.model_copy(options) is options
    assert isinstance(options, FinalRequestOptions)


def test_requests_of_one_route_share_nothing_that_differs() -> None:
    prepared = UpstreamOptions.prepare("POST", CHAT)
    exchanges = [Exchange(), Exchange()]
    one, other = prepared.of(b"1", JSON, exchanges[0]), prepared.of(b"2", [], exchanges[1])
    assert (one.content, one.fields, one.exchange) == (b"1", JSON, exchanges[0])
    assert (other.content, other.fields, other.exchange) == (b"2", [], exchanges[1])
    assert prepared.exchange is None
    assert (one.method, one.url) == (other.method, other.url) == ("POST", CHAT)
    assert one.get_max_retries(0) == 0


def test_the_sdk_draws_no_idempotency_key(client: UpstreamClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def draw() -> str:
        raise AssertionError("a key was drawn")

    monkeypatch.setattr(client, "_idempotency_key", draw)
    prepared = UpstreamOptions.prepare("POST", CHAT)
    assert prepared.of(b"{}", [], Exchange()).idempotency_key is not None


# What leaves


def test_no_field_leaves_but_those_that_are_ours_or_were_given(
    upstream: ScriptedUpstream, client: UpstreamClient
) -> None:
    upstream.answer(OK)
    upstream.answer(OK)
    send(client)
    send(client, fields=[*JSON, ("Idempotency-Key", "the callers own")])
    ours = ["host", "accept", "accept-encoding", "user-agent", "content-type"]
    assert [names_of(received) for received in upstream.requests] == [
        [*ours, "content-length"],
        [*ours, "idempotency-key", "content-length"],
    ]
    assert b"Idempotency-Key: the callers own" in upstream.requests[1].head
    assert not any(b"not sent" in received.head for received in upstream.requests)


def test_cookies_of_an_upstream_are_never_sent_back(upstream: ScriptedUpstream, client: UpstreamClient) -> None:
    upstream.answer(COOKIES)
    upstream.answer(COOKIES.replace(b"200 OK", b"429 No"))
    upstream.answer(OK)
    send(client)
    with pytest.raises(UpstreamAnswer):
        send(client)
    send(client)
    assert len(upstream.requests) == 3
    assert not any("cookie" in names_of(received) for received in upstream.requests)


def test_cookies_of_an_upstream_are_never_sent_back_by_the_async_client(upstream: ScriptedUpstream) -> None:
    settings = UpstreamSettings(base_url=upstream.url + "/v1")

    async def ask_twice() -> None:
        async with AsyncUpstreamClient(settings, None, httpx2.AsyncHTTPTransport(trust_env=False)) as client:
            for _ in range(2):
                assert await client.send(CHAT, content=b"{}", fields=JSON) == b"{}"

    upstream.answer(COOKIES)
    upstream.answer(OK)
    asyncio.run(ask_twice())
    assert len(upstream.requests) == 2
    assert "cookie" not in names_of(upstream.requests[1])


@pytest.mark.parametrize("content", [b"", b"{}"], ids=["empty", "a body"])
@pytest.mark.parametrize("method", ["GET", "POST", "get", "post"])
def test_length_is_named_unless_a_get_has_no_body(
    upstream: ScriptedUpstream, client: UpstreamClient, method: str, content: bytes
) -> None:
    upstream.answer(OK)
    send(client, method, content, [])
    [received] = upstream.requests
    assert received.head.startswith(method.upper().encode() + b" /v1/chat/completions HTTP/1.1\r\n")
    lengths = [line for line in received.head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    assert lengths == ([b"Content-Length: %d" % len(content)] if content or method.upper() == "POST" else [])


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_long_body_arrives_whole_in_one_write_with_its_head_or_in_two(
    upstream: ScriptedUpstream, client: UpstreamClient, more: int
) -> None:
    content = bytes(range(256)) * (JOINED_MOST_BYTES // 256) + b"x"
    content = content[: JOINED_MOST_BYTES + more]
    upstream.answer(OK)
    assert send(client, content=content) == b"{}"
    assert upstream.requests[0].body == content


def test_body_of_20_mb_arrives_whole(upstream: ScriptedUpstream, client: UpstreamClient) -> None:
    content = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(20_000_000 // 32))
    upstream.answer(OK)
    assert send(client, content=content) == b"{}"
    assert upstream.requests[0].body == content


# The head


@pytest.mark.parametrize("token", [None, ONE], ids=["no token", "token"])
@pytest.mark.parametrize(
    ("method", "content"), [("POST", b"{}"), ("POST", b""), ("GET", b"")], ids=["post", "post nothing", "get"]
)
@pytest.mark.parametrize(
    "base_url",
    [
        "http://127.0.0.1:8080/v1",
        "http://llm.example.com:80/v1/",
        "https://llm.example.com:443",
        "https://llm.example.com:80/a%20b/ü",
        "https://[::1]:8443/v1",
        "http://user:secret@llm.example.com/v1",
        "http://bücher.example/v1",
    ],
)
def test_both_ways_to_make_a_request_give_the_same_head(
    base_url: str, method: str, content: bytes, token: Token | None
) -> None:
    settings = UpstreamSettings(base_url=base_url, fields={"X-App-Id": "a", "x-b": "c d"})
    builder = RequestBuilder(settings)
    fields = [*JSON, ("traceparent", "00-1")]
    head = builder.head(method, CHAT, content, fields, token)
    assert lines_of(head) == lines_of(_head_of(builder.request(method, CHAT, content, fields, token)))
    assert head.endswith(b"\r\n\r\n")
    assert (b"Authorization: Bearer token-one" in head.split(b"\r\n")) is (token is not None)
    assert b"secret" not in head


def lines_of(head: bytes) -> tuple[bytes, list[bytes]]:
    """The request line, and the fields, whose order among different names means nothing."""
    first, *fields = head.split(b"\r\n")
    return first, sorted(fields)


@pytest.mark.parametrize(
    ("header", "prefix", "line"),
    [
        ("Authorization", "Bearer", b"Authorization: Bearer token-one"),
        ("X-Api-Key", "", b"X-Api-Key: token-one"),
        ("Authorization", "Token v2", b"Authorization: Token v2 token-one"),
    ],
)
def test_token_stands_in_its_field_with_its_prefix(header: str, prefix: str, line: bytes) -> None:
    settings = UpstreamSettings(base_url="http://llm/v1", token_header=header, token_prefix=prefix)
    assert line in RequestBuilder(settings).head("POST", CHAT, b"{}", [], ONE).split(b"\r\n")


def test_head_changes_with_the_token() -> None:
    builder = RequestBuilder(UpstreamSettings(base_url="http://llm/v1"))
    for token in (ONE, ONE, OTHER, None, ONE, token_of("token-one"), None):
        head = builder.head("POST", CHAT, b"{}", JSON, token)
        assert head.count(b"Authorization: ") == (token is not None)
        assert token is None or f"Bearer {token.value}\r\n".encode() in head


def test_head_is_of_its_route_and_its_body() -> None:
    builder = RequestBuilder(UpstreamSettings(base_url="http://llm/v1"))
    heads = [builder.head(method, path, b"x" * size, [], ONE) for method, path, size in ROUTES * 2]
    assert heads[:3] == heads[3:]
    for head, (method, path, size) in zip(heads, ROUTES, strict=False):
        assert head.startswith(f"{method} /v1{path} HTTP/1.1\r\nHost: llm\r\n".encode())
        assert (b"Content-Length: %d\r\n" % size in head) is (size > 0)


ROUTES = [("POST", CHAT, 2), ("POST", "/embeddings", 3), ("GET", "/models", 0)]


@pytest.fixture
def _short_turns() -> Iterator[None]:
    """Threads that take turns as often as can be."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("_short_turns")
def test_heads_of_threads_with_other_tokens_and_routes_never_mix() -> None:
    builder = RequestBuilder(UpstreamSettings(base_url="http://llm/v1"))
    mixed: list[bytes] = []
    start = threading.Barrier(6)

    def make(token: Token, path: str) -> Callable[[], None]:
        def run() -> None:
            start.wait(5)
            for _ in range(2000):
                head = builder.head("POST", path, b"{}", [], token)
                if f" /v1{path} ".encode() not in head or f" {token.value}\r\n".encode() not in head:
                    mixed.append(head)

        return run

    tokens = (ONE, OTHER, token_of("token-third"))
    threads = [threading.Thread(target=make(token, path)) for token in tokens for path in (CHAT, "/embeddings")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert mixed == []
