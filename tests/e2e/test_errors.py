"""Keys that open, and the errors of an upstream that cross or become ours.

What is shown elsewhere: the table of our own errors in test_error_table, keys and paths that open nothing in
test_caller_faults, heads that are refused in test_odd_heads, the field Retry-After in test_upstream_faults.
"""

import json
from typing import Any

import httpx
import pytest

from tests.support.guarded_proxy import MOST_BYTES, SORTED_WORDS, guarded_config
from tests.support.proxy_process import ProxyFarm, ProxyProcess
from tests.support.raw_http import RawCaller, error_of, status_of
from tests.support.sandbox_client import SandboxClient

CHAT = "/v1/chat/completions"
BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture
def guarded(farm: ProxyFarm, sandbox: SandboxClient, worker_class: str) -> ProxyProcess:
    return farm.proxy(guarded_config(sandbox, worker_class))


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


def test_a_key_opens_by_authorization_and_by_api_key(guarded: ProxyProcess) -> None:
    assert ask(guarded).status_code == 200
    assert ask(guarded, None, headers={"Authorization": "bearer  key-all"}).status_code == 200
    assert ask(guarded, None, headers={"api-key": "key-all"}).status_code == 200
    assert ask(guarded, headers={"api-key": "key-all"}).status_code == 200


def test_a_key_for_some_models_opens_those(guarded: ProxyProcess) -> None:
    assert ask(guarded, "key-some", json={**BODY, "model": "gpt-4o"}).status_code == 200


def test_a_body_at_the_limit_passes(guarded: ProxyProcess) -> None:
    start = b'{"model": "m", "messages": [{"role": "user", "content": "'
    at_limit = start + b"x" * (MOST_BYTES - len(start) - 4) + b'"}]}'
    assert ask(guarded, content=at_limit).status_code == 200
    assert ask(guarded, content=iter([at_limit[:10], at_limit[10:]])).status_code == 200


def test_a_request_that_is_no_http_gets_400_in_json_and_its_key_is_not_logged(guarded: ProxyProcess) -> None:
    with RawCaller(guarded.port) as caller:
        caller.send(f"POST {CHAT} HTTP/1.1\r\nHost: p\r\nAuthorization Bearer marked-secret-1\r\n\r\n".encode())
        answer = caller.read_to_end()
    assert status_of(answer) == 400
    assert error_of(answer)["code"] == "invalid_request"
    assert "marked-secret-1" not in answer.decode() + guarded.log()


# The upstream


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
