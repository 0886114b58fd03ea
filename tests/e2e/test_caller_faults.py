"""What a caller can send to get in, to get elsewhere, or to break something: refused, named, and nothing left behind.

What is shown elsewhere: the table of errors in test_error_table, bodies in test_caller_bodies, connections and
pipelining in test_wire, callers that leave in test_streams, other origins in test_cors, the ends of requests in
test_smuggling, heads in test_odd_heads, callers that are slow in test_slow_callers.
"""

import hashlib
import json
import re
from typing import Any

import pytest

from tests.support.always_true import always_true
from tests.support.proxy_process import ProxyFarm, ProxyProcess
from tests.support.raw_answers import answers_of
from tests.support.raw_http import RawCaller, status_of
from tests.support.sandbox_client import SandboxClient
from tests.support.scripted_upstream import ScriptedUpstream

CHAT = "/v1/chat/completions"
BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
KEY = "caller-key-1"
MARK = "marked-wrong-key"
MOST_BYTES = 200_000


@pytest.fixture
def guarded(farm: ProxyFarm, sandbox: SandboxClient, worker_class: str) -> ProxyProcess:
    """A proxy with one client key, for bodies of up to 200 kB."""
    server = {"worker_class": worker_class, "max_body_bytes": MOST_BYTES}
    keys = [{"label": "one", "sha256": hashlib.sha256(KEY.encode()).hexdigest()}]
    return farm.proxy(sandbox.config(server=server, client_keys=keys))


def raw_answer(proxy: ProxyProcess, path: str, *fields: str, body: bytes | dict[str, Any] = BODY) -> bytes:
    with RawCaller(proxy.port) as caller:
        caller.post(path, body, *fields, "Connection: close")
        return caller.read_to_end()


# Keys


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [f"Authorization: Bearer {MARK}"],
        [f"Authorization: Bearer {MARK}{'k' * 8192}"],
        [f"Authorization: Bearer {MARK}' OR 1=1--"],
        [f"Authorization: Bearer {KEY}{MARK}"],
        [f"Authorization: Bearer {KEY[:-1]}"],
        [f"Authorization: Bearer {KEY.upper()}"],
        [f"Authorization: Bearer {hashlib.sha256(KEY.encode()).hexdigest()}"],
        [f"Authorization: Bearer {MARK}\xe9\xff"],
        ["Authorization: Bearer"],
        ["Authorization: Bearer *"],
        ["Authorization:"],
        [f"Authorization: {KEY}"],
        [f"Authorization: Basic {KEY}"],
        [f"Authorization: Digest username={MARK}"],
        [f"Authorization: BearerX {KEY}"],
        ["api-key:"],
        [f"api-key: {MARK}"],
        [f"api-key: Bearer {KEY}"],
        [f"X-Api-Key: {KEY}"],
        [f"Proxy-Authorization: Bearer {KEY}"],
        [f"Cookie: api-key={KEY}; Authorization=Bearer {KEY}"],
    ],
    ids=lambda fields: (fields or ["none"])[0][:40],
)
def test_wrong_keys_get_one_answer_that_tells_nothing(
    guarded: ProxyProcess, sandbox: SandboxClient, fields: list[str]
) -> None:
    with always_true(guarded, sandbox, secrets=[MARK, KEY]) as watch:
        answer = watch.saw(raw_answer(guarded, CHAT, *fields, f"X-Request-Id: {watch.request_id()}"))
        plain = watch.saw(raw_answer(guarded, CHAT, f"X-Request-Id: {watch.request_id()}"))
    assert status_of(answer) == 401
    assert without_what_differs(answer) == without_what_differs(plain)
    assert sandbox.log() == []


def without_what_differs(answer: bytes) -> bytes:
    return re.sub(rb"(?m)^(Date|X-Request-Id): [^\r]*\r\n", b"", answer)


@pytest.mark.parametrize(
    "query",
    [f"api-key={KEY}", f"api_key={KEY}", f"key={KEY}", f"access_token={KEY}", f"Authorization=Bearer%20{KEY}"],
)
def test_key_in_the_query_opens_nothing_and_is_not_logged(
    guarded: ProxyProcess, sandbox: SandboxClient, query: str
) -> None:
    with always_true(guarded, sandbox, secrets=[KEY]) as watch:
        assert watch.ask(f"{CHAT}?{query}", json=BODY).status_code == 401
    assert sandbox.log() == []


# Ways to another place


@pytest.mark.parametrize(
    "fields",
    [
        ["Connection: authorization, host, content-length, content-type"],
        ["Connection: close, x-app-id", "X-App-Id: other"],
        ["TE: trailers", "Trailer: X-Sum", "Connection: TE"],
        ["Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA", "Connection: Upgrade, HTTP2-Settings"],
        ["Upgrade: websocket", "Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==", "Connection: Upgrade"],
        ["Proxy-Connection: keep-alive", "Keep-Alive: timeout=1000", "Proxy-Authenticate: Basic"],
        ["X-Forwarded-For: 1.1.1.1", "X-Forwarded-Host: other", "X-Real-IP: 1.1.1.1", "Forwarded: host=other"],
        ["X-Forwarded-Proto: https", "X-HTTP-Method-Override: DELETE", "X-Original-URL: /v1/models", "Via: 1.0 other"],
    ],
    ids=lambda fields: fields[0],
)
def test_connection_and_forwarding_fields_change_nothing_for_the_upstream(
    farm: ProxyFarm, sandbox: SandboxClient, worker_class: str, fields: list[str]
) -> None:
    config = sandbox.config(server={"worker_class": worker_class}, upstream={"headers": {"X-App-Id": "app-7"}})
    proxy = farm.proxy(config)
    with always_true(proxy, sandbox) as watch:
        plain = watch.chat()
        expected = sandbox.last()
        with RawCaller(proxy.port) as caller:
            caller.post(CHAT, BODY, *fields, f"X-Request-Id: {watch.request_id()}")
            answer = watch.saw(caller.read_until(b'"usage"'))
    assert status_of(answer) == plain.status_code == 200
    entry = sandbox.last()
    assert (entry["method"], entry["path"], entry["token"]) == ("POST", CHAT, "valid")
    differs = {"content-length"}  # httpx writes its JSON without blanks
    assert [field for field in entry["headers"] if field[0].lower() not in differs] == [
        field for field in expected["headers"] if field[0].lower() not in differs
    ]


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        *[
            (path, [])
            for path in (
                *(
                    "/healthz/../v1/chat/completions",
                    "/healthz/%2e%2e/v1/chat/completions",
                    "/%2e%2e/v1/chat/completions",
                ),
                *("//v1/chat/completions", "/v1//chat/completions", "/./v1/chat/completions", "/v1/./chat/completions"),
                *(
                    "/healthz;/v1/chat/completions",
                    "/v1/chat/completions;x=1",
                    "/v1/chat;x=1/completions",
                    "/v1%2Fchat",
                ),
                *("/healthz%2f..%2fv1%2fchat%2fcompletions", "/v1/chat/completions%00", "/v1\\chat\\completions"),
                *("/V1/chat/completions", "/v1/chat/completions/../../../healthz", "/v1/%63hat/%2563ompletions"),
                *("/v1/v1/v1/chat/completions", "/agent/api/llm_proxy/../../../v1/chat/completions"),
            )
        ],
        ("/nowhere", ["X-Original-URL: /v1/chat/completions"]),
        ("/nowhere", ["X-Rewrite-URL: /v1/chat/completions"]),
        ("/nowhere", ["X-Forwarded-Prefix: /v1", "X-Forwarded-Path: /v1/chat/completions"]),
        ("/healthz", ["X-Original-URL: /v1/chat/completions"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "".join(value)[:14],
)
def test_tricks_with_paths_reach_no_upstream(
    guarded: ProxyProcess, sandbox: SandboxClient, path: str, fields: list[str]
) -> None:
    for key in ([], [f"Authorization: Bearer {KEY}"]):
        answer = raw_answer(guarded, path, *fields, *key)
        assert status_of(answer) in ((405,) if path == "/healthz" else (401, 404))
    assert sandbox.log() == []


def test_members_of_a_body_never_decide_where_a_request_goes(proxy: ProxyProcess, sandbox: SandboxClient) -> None:
    with ScriptedUpstream() as other, always_true(proxy, sandbox) as watch:
        names = (
            "api_base",
            "base_url",
            "api_key",
            "api_version",
            "endpoint",
            "host",
            "url",
            "proxy",
            "custom_llm_provider",
        )
        members = dict.fromkeys(names, f"{other.url}/v1")
        nested = {"litellm_params": members, "extra_body": members, "metadata": {"router": members}, "headers": members}
        assert watch.chat(**members, **nested, extra_headers={"Host": "other"}).status_code == 200
        assert watch.chat(stream=True, **members, **nested).status_code == 200
        assert other.connections == []
    assert [entry["path"] for entry in sandbox.log()] == [CHAT, CHAT]


# Expect: 100-continue


def test_caller_that_waits_to_be_asked_for_its_body_is_asked_and_served(
    guarded: ProxyProcess, sandbox: SandboxClient
) -> None:
    raw = json.dumps(BODY).encode()
    with always_true(guarded, sandbox) as watch, RawCaller(guarded.port) as caller:
        for _ in range(2):
            fields = f"Host: p\r\nAuthorization: Bearer {KEY}\r\nX-Request-Id: {watch.request_id()}\r\n"
            head = f"POST {CHAT} HTTP/1.1\r\n{fields}Expect: 100-continue\r\nContent-Length: {len(raw)}\r\n\r\n"
            caller.send(head.encode())
            assert caller.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            caller.send(raw)
            assert status_of(watch.saw(caller.read_until(b'"usage"'))) == 200
    assert [entry["body"] for entry in sandbox.log()] == [raw, raw]


@pytest.mark.parametrize(
    ("fields", "status"),
    [(f"Authorization: Bearer {KEY}\r\nContent-Length: {MOST_BYTES + 1}", 413), ("Content-Length: 10", 401)],
    ids=["too large", "no key"],
)
def test_caller_that_waits_for_nothing_gets_its_refusal(
    guarded: ProxyProcess, sandbox: SandboxClient, fields: str, status: int
) -> None:
    with always_true(guarded, sandbox) as watch, RawCaller(guarded.port) as caller:
        head = f"POST {CHAT} HTTP/1.1\r\nHost: p\r\nX-Request-Id: {watch.request_id()}\r\n{fields}\r\n"
        caller.send(f"{head}Expect: 100-continue\r\n\r\n".encode())
        answers = answers_of(caller.read_until(b"}}\n"))
    assert [answer.status for answer in answers if answer.status >= 200] == [status]
    assert sandbox.log() == []
