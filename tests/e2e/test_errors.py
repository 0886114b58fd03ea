"""The table of errors in the contract, row by row, and what an upstream or an issuer can do wrong."""

import hashlib
import json
import re
from typing import Any

import httpx
import pytest

from tests.support.proxy_process import ProxyFarm, ProxyProcess, free_port
from tests.support.raw_http import RawCaller, error_of, field_of, status_of
from tests.support.sandbox_client import SandboxClient
from tests.support.waiting import wait_for

CHAT = "/v1/chat/completions"
BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
# RAGFlow sorts errors by these words and gives up on what it finds.
SORTED_WORDS = re.compile(r"auth|key|token|invalid|format|quota|credit|capacity|\b[1-5]\d\d\b", re.IGNORECASE)


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


KEYS = [
    {"label": "all", "sha256": digest("key-all")},
    {"label": "old", "sha256": digest("key-old"), "expires_at": "2020-01-01T00:00:00Z"},
    {"label": "some", "sha256": digest("key-some"), "models": ["gpt-*"]},
    {"label": "slow", "sha256": digest("key-slow"), "requests_per_minute": 2},
    {"label": "one", "sha256": digest("key-one"), "max_concurrent": 1},
]


@pytest.fixture
def guarded(farm: ProxyFarm, sandbox: SandboxClient, worker_class: str) -> ProxyProcess:
    """A proxy with client keys, a model map without a wildcard, and small limits."""
    config = sandbox.config(
        server={"worker_class": worker_class, "max_body_bytes": 1000, "url_prefixes": ["/p", ""]},
        upstream={"models": {"gpt-*": "*", "m": "m"}},
        client_keys=KEYS,
    )
    return farm.proxy(config)


def ask(proxy: ProxyProcess, key: str | None = "key-all", path: str = CHAT, **request: Any) -> httpx.Response:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    headers |= request.pop("headers", {})
    if not {"json", "content"} & set(request):
        request["json"] = BODY
    return httpx.post(proxy.url + path, headers=headers, trust_env=False, timeout=20, **request)


def check_error(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["X-Request-Id"]
    error: dict[str, Any] = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code)
    assert set(error) == {"message", "type", "param", "code"}
    if status >= 500:
        assert not SORTED_WORDS.search(error["message"]), error["message"]
    return error


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("X-Nothing", "x"),
        ("Authorization", "Bearer wrong"),
        ("Authorization", "Basic a2V5LWFsbA=="),
        ("Authorization", "key-all"),
        ("Authorization", "Bearer x' OR 1=1--"),
        ("Authorization", "Bearer " + "k" * 7000),
        ("Authorization", "Bearer key-old"),
        ("api-key", "wrong"),
    ],
    ids=["none", "unknown", "other scheme", "no scheme", "injection", "long", "expired", "api-key"],
)
def test_a_missing_unknown_or_expired_key_is_401_and_the_same_for_all(
    guarded: ProxyProcess, sandbox: SandboxClient, field: str, value: str
) -> None:
    answer = ask(guarded, None, headers={field: value})
    error = check_error(answer, 401, "invalid_api_key")
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert error["message"] == "Missing, unknown or expired API key."
    assert sandbox.log() == []


def test_a_key_opens_by_authorization_and_by_api_key(guarded: ProxyProcess) -> None:
    assert ask(guarded).status_code == 200
    assert ask(guarded, None, headers={"Authorization": "bearer  key-all"}).status_code == 200
    assert ask(guarded, None, headers={"api-key": "key-all"}).status_code == 200
    assert ask(guarded, headers={"api-key": "key-all"}).status_code == 200


def test_a_key_in_the_query_opens_nothing(guarded: ProxyProcess) -> None:
    check_error(ask(guarded, None, path=CHAT + "?api-key=key-all&key=key-all"), 401, "invalid_api_key")


@pytest.mark.parametrize(
    "fields",
    [
        ["Authorization: Bearer key-all", "Authorization: Bearer key-all"],
        ["Authorization: Bearer key-all, Bearer other"],
        ["Authorization: Bearer key-all", "api-key: key-some"],
        ["api-key: key-all", "api-key: key-some"],
    ],
    ids=["two lines", "a comma", "two that disagree", "two api-keys"],
)
def test_two_credentials_are_400(guarded: ProxyProcess, sandbox: SandboxClient, fields: list[str]) -> None:
    with RawCaller(guarded.port) as caller:
        caller.post(CHAT, BODY, *fields, "Connection: close")
        answer = caller.read_to_end()
    assert status_of(answer) == 400
    assert error_of(answer)["code"] == "invalid_request"
    assert sandbox.log() == []


def test_a_model_that_the_key_may_not_use_is_403(guarded: ProxyProcess) -> None:
    check_error(ask(guarded, "key-some"), 403, "model_not_allowed")
    assert ask(guarded, "key-some", json={**BODY, "model": "gpt-4o"}).status_code == 200


def test_a_model_that_no_upstream_serves_is_404(guarded: ProxyProcess) -> None:
    assert check_error(ask(guarded, json={**BODY, "model": "other"}), 404, "model_not_found")["param"] == "model"


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "invalid_json"),
        (b"not json", "invalid_json"),
        (b'{"model": "m"', "invalid_json"),
        (b'{"model": "m"} x', "invalid_json"),
        ('{"model": "m"}'.encode("utf-16"), "invalid_json"),
        (b'{"model": "m\xff"}', "invalid_json"),
        (b'{"model": "m", "x": "\\ud800"}', "invalid_json"),
        (b'{"model": "m", "model": "n"}', "invalid_json"),
        (b'{"model": "m", "mod\\u0065l": "n"}', "invalid_json"),
        (b'{"model": "m", "x": NaN}', "invalid_json"),
        (b'{"model": "m", "x": [1e400]}', "invalid_json"),
        (b'{"model": "m", "x": ' + b"[" * 400 + b"]" * 400 + b"}", "invalid_json"),
        (b"[1]", "invalid_request"),
        (b'"model"', "invalid_request"),
        (b"{}", "invalid_request"),
        (b'{"model": 5}', "invalid_request"),
        (b'{"model": ""}', "invalid_request"),
        (b'{"model": "m", "stream": "yes"}', "invalid_request"),
    ],
    ids=lambda value: repr(value[:30]) if isinstance(value, bytes) else None,
)
def test_a_bad_body_is_400_with_the_fault_named_and_not_quoted(
    guarded: ProxyProcess, sandbox: SandboxClient, raw: bytes, code: str
) -> None:
    check_error(ask(guarded, content=raw), 400, code)
    assert sandbox.log() == []


def test_a_body_at_the_limit_passes_and_one_byte_more_is_413(guarded: ProxyProcess) -> None:
    start = b'{"model": "m", "messages": [{"role": "user", "content": "'
    at_limit = start + b"x" * (1000 - len(start) - 4) + b'"}]}'
    assert ask(guarded, content=at_limit).status_code == 200
    check_error(ask(guarded, content=at_limit + b" "), 413, "body_too_large")


def test_a_chunked_body_over_the_limit_is_413(guarded: ProxyProcess) -> None:
    check_error(ask(guarded, content=iter([b'{"model": "m", "x": "', b"x" * 2000, b'"}'])), 413, "body_too_large")


def test_a_length_of_30_digits_is_413_at_once(guarded: ProxyProcess) -> None:
    with RawCaller(guarded.port) as caller:
        head = f"POST {CHAT} HTTP/1.1\r\nHost: p\r\nAuthorization: Bearer key-all\r\nContent-Length: {10**30}\r\n\r\n"
        caller.send(head.encode())
        assert status_of(caller.read_to_end()) in (400, 413)


def test_bad_chunks_are_400(guarded: ProxyProcess) -> None:
    with RawCaller(guarded.port) as caller:
        head = f"POST {CHAT} HTTP/1.1\r\nHost: p\r\nAuthorization: Bearer key-all\r\nTransfer-Encoding: chunked\r\n\r\n"
        caller.send(head.encode() + b"zz\r\nabc\r\n0\r\n\r\n")
        answer = caller.read_to_end()
    assert status_of(answer) == 400
    assert error_of(answer)["code"] == "invalid_request"


def test_the_rate_of_a_key_used_up_is_429_with_retry_after(
    farm: ProxyFarm, own_sandbox: SandboxClient, worker_class: str
) -> None:
    proxy = farm.proxy(own_sandbox.config(server={"worker_class": worker_class}, client_keys=KEYS))
    assert [ask(proxy, "key-slow").status_code for _ in range(2)] == [200, 200]
    answer = ask(proxy, "key-slow")
    check_error(answer, 429, "rate_limit_exceeded")
    assert 1 <= int(answer.headers["Retry-After"]) <= 61
    assert ask(proxy, "key-all").status_code == 200


def test_the_concurrency_of_a_key_used_up_is_429_until_a_slot_is_free(
    guarded: ProxyProcess, sandbox: SandboxClient
) -> None:
    sandbox.faults(upstream=[{"kind": "hang", "times": 1}])
    with RawCaller(guarded.port) as caller:
        caller.post(CHAT, BODY, "Authorization: Bearer key-one")
        sandbox.wait_until(lambda state: state["open"] == 1)
        answer = ask(guarded, "key-one")
        check_error(answer, 429, "rate_limit_exceeded")
        assert int(answer.headers["Retry-After"]) >= 1
        assert ask(guarded, "key-all").status_code == 200
    sandbox.wait_until(lambda state: state["open"] == 0)
    wait_for(lambda: ask(guarded, "key-one").status_code == 200)


def test_a_full_proxy_is_503_with_retry_after_and_still_healthy(
    farm: ProxyFarm, sandbox: SandboxClient, worker_class: str
) -> None:
    proxy = farm.proxy(sandbox.config(server={"worker_class": worker_class, "max_concurrent_requests": 2}))
    sandbox.faults(upstream=[{"kind": "hang", "times": 2}])
    with RawCaller(proxy.port) as one, RawCaller(proxy.port) as other:
        one.post(CHAT, BODY)
        other.post(CHAT, BODY)
        sandbox.wait_until(lambda state: state["open"] == 2)
        answer = ask(proxy)
        check_error(answer, 503, "overloaded")
        assert int(answer.headers["Retry-After"]) >= 1
        assert httpx.get(proxy.url + "/healthz", trust_env=False).status_code == 200
    wait_for(lambda: ask(proxy).status_code == 200)


def test_an_unknown_route_is_404_and_a_wrong_method_405_in_json(guarded: ProxyProcess) -> None:
    check_error(ask(guarded, path="/nope"), 404, "not_found")
    check_error(ask(guarded, path="//v1/chat/completions"), 404, "not_found")
    answer = httpx.get(guarded.url + CHAT, trust_env=False, headers={"Authorization": "Bearer key-all"})
    check_error(answer, 405, "method_not_allowed")
    assert "POST" in answer.headers["Allow"]


@pytest.mark.parametrize(
    "path",
    ["/healthz/../v1/chat/completions", "/%2e%2e/v1/chat/completions", "/v1/chat/completions;x=1", "/v1%2Fchat"],
)
def test_path_tricks_reach_nothing(guarded: ProxyProcess, sandbox: SandboxClient, path: str) -> None:
    with RawCaller(guarded.port) as caller:
        caller.post(path, BODY, "Connection: close")
        assert status_of(caller.read_to_end()) in (400, 401, 404)
    assert sandbox.log() == []


def test_a_request_that_is_no_http_gets_400_in_json_and_its_key_is_not_logged(guarded: ProxyProcess) -> None:
    with RawCaller(guarded.port) as caller:
        caller.send(f"POST {CHAT} HTTP/1.1\r\nHost: p\r\nAuthorization Bearer marked-secret-1\r\n\r\n".encode())
        answer = caller.read_to_end()
    assert status_of(answer) == 400
    assert error_of(answer)["code"] == "invalid_request"
    assert "marked-secret-1" not in answer.decode() + guarded.log()


# The upstream


def test_a_refused_connection_is_502_within_a_second(
    farm: ProxyFarm, sandbox: SandboxClient, worker_class: str
) -> None:
    upstream = {"base_url": f"http://127.0.0.1:{free_port()}/v1"}
    proxy = farm.proxy(sandbox.config(server={"worker_class": worker_class}, upstream=upstream))
    check_error(ask(proxy), 502, "upstream_unavailable")


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "reset"},
        {"kind": "close"},
        {"kind": "gzip"},
        {"kind": "short"},
        {"kind": "redirect", "location": "/elsewhere"},
        {"kind": "status", "status": 204},
        {"kind": "reply", "content_type": "text/html", "body": "<html>Log in</html>"},
        {"kind": "refuse_token"},
        {"kind": "raw", "bytes": "Z2FyYmFnZQ0KDQo="},
    ],
    ids=["reset", "close", "gzip", "short body", "redirect", "204", "HTML", "token refused", "no HTTP"],
)
def test_nonsense_from_the_upstream_is_502(
    farm: ProxyFarm, own_sandbox: SandboxClient, worker_class: str, fault: dict[str, Any]
) -> None:
    proxy = farm.proxy(own_sandbox.config(server={"worker_class": worker_class}))
    assert ask(proxy).status_code == 200
    own_sandbox.faults(upstream=[fault])
    check_error(ask(proxy), 502, "upstream_unavailable")
    own_sandbox.faults(upstream=[])
    assert ask(proxy).status_code == 200


def test_no_first_byte_in_time_is_504_and_the_upstream_is_freed(
    farm: ProxyFarm, sandbox: SandboxClient, worker_class: str
) -> None:
    upstream = {"timeouts": {"connect_s": 1, "first_byte_s": 0.5, "idle_s": 1, "total_s": 5}}
    proxy = farm.proxy(sandbox.config(server={"worker_class": worker_class}, upstream=upstream))
    sandbox.faults(upstream=[{"kind": "hang"}])
    check_error(ask(proxy), 504, "upstream_timeout")
    sandbox.wait_until(lambda state: state["open"] == 0)


@pytest.mark.parametrize("status", [400, 403, 404, 409, 422, 429, 500, 503])
def test_the_upstreams_own_json_errors_pass_and_nothing_is_retried(
    proxy: ProxyProcess, sandbox: SandboxClient, status: int
) -> None:
    body = json.dumps({"error": {"message": "their words", "extra": 1}})
    sandbox.faults(upstream=[{"kind": "status", "status": status, "body": body, "headers": {"Retry-After": "7"}}])
    answer = ask(proxy)
    assert (answer.status_code, answer.text, answer.headers["Retry-After"]) == (status, body, "7")
    assert len(sandbox.log()) == 1


@pytest.mark.parametrize("body", ["<html>Bad gateway</html>", ""], ids=["HTML", "empty"])
def test_an_upstream_error_that_is_no_json_becomes_ours_with_its_status(
    proxy: ProxyProcess, sandbox: SandboxClient, body: str
) -> None:
    headers = {"Content-Type": "text/html"}
    sandbox.faults(upstream=[{"kind": "status", "status": 503, "body": body, "headers": headers}])
    check_error(ask(proxy), 503, "upstream_error")


@pytest.mark.parametrize("status", [400, 500])
@pytest.mark.parametrize(("length", "crosses"), [(64 * 1024, True), (64 * 1024 + 1, False), (10**6, False)])
def test_an_upstream_error_of_more_than_64_kib_becomes_ours_and_not_half_a_text(
    proxy: ProxyProcess, sandbox: SandboxClient, status: int, length: int, crosses: bool
) -> None:
    body = '{"error": "' + "x" * (length - len('{"error": ""}')) + '"}'
    sandbox.faults(upstream=[{"kind": "status", "status": status, "body": body}])
    answer = ask(proxy)
    assert answer.status_code == status
    if crosses:
        assert answer.text == body
    else:
        check_error(answer, status, "upstream_error")


def test_an_insane_retry_after_is_left_out(proxy: ProxyProcess, sandbox: SandboxClient) -> None:
    fault = {"kind": "status", "status": 429, "body": "{}", "headers": {"Retry-After": "1000000000"}}
    sandbox.faults(upstream=[fault])
    assert "Retry-After" not in ask(proxy).headers


# The issuer


def test_a_revoked_token_is_renewed_once_and_each_request_replayed_once(
    farm: ProxyFarm, own_sandbox: SandboxClient, worker_class: str
) -> None:
    proxy = farm.proxy(own_sandbox.config(server={"worker_class": worker_class}))
    assert ask(proxy).status_code == 200
    own_sandbox.revoke()
    assert [ask(proxy).status_code for _ in range(10)] == [200] * 10
    assert own_sandbox.state()["fetches"] == 2
    assert own_sandbox.state()["tokens"]["revoked"] == 1


def test_a_dead_issuer_is_503_with_retry_after_and_recovers_by_itself(
    farm: ProxyFarm, own_sandbox: SandboxClient, worker_class: str
) -> None:
    own_sandbox.faults(issuer=[{"kind": "status", "status": 500}])
    proxy = farm.proxy(own_sandbox.config(server={"worker_class": worker_class}))
    answer = ask(proxy)
    check_error(answer, 503, "upstream_unavailable")
    assert int(answer.headers["Retry-After"]) >= 1
    assert httpx.get(proxy.url + "/readyz", trust_env=False).status_code == 503
    own_sandbox.faults(issuer=[])
    wait_for(lambda: httpx.get(proxy.url + "/readyz", trust_env=False).status_code == 200, within_s=12)
    assert ask(proxy).status_code == 200


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1\r\n",
        b"HTTP/1.1\r\nHost: a/b?c#d\r\n",
        b"HTTP/1.1\r\nHost: a b\r\n",
        b"HTTP/1.2\r\nHost: p\r\n",
        b"HTTP/1.1\r\nHost: p\r\nX_Odd: 1\r\n",
        b"HTTP/1.1\r\nHost: p\r\nTransfer-Encoding: gzip, chunked\r\n",
    ],
    ids=["no Host", "a path in Host", "a blank in Host", "HTTP/1.2", "underscore", "gzip"],
)
def test_a_head_that_others_would_read_in_another_way_is_refused_in_json(
    proxy: ProxyProcess, sandbox: SandboxClient, head: bytes
) -> None:
    with RawCaller(proxy.port) as caller:
        caller.send(b"POST /v1/chat/completions " + head + b"Connection: close\r\n\r\n")
        answer = caller.read_to_end()
    assert status_of(answer) == 400
    assert field_of(answer, "Content-Type") == "application/json"
    assert sandbox.log() == []
