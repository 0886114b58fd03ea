"""The table of errors in the contract, row by row, as it stands on the wire.

Each request goes with an honest one behind it, in one write: where the answer says that the connection stays, the
honest one is answered on it; where it says that the connection ends, nothing more comes.
"""

import base64
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.guarded_proxy import MOST_BYTES, SORTED_WORDS, guarded_config
from tests.support.proxy_process import ProxyFarm, ProxyProcess
from tests.support.raw_answers import RawAnswer, answers_of
from tests.support.raw_http import RawCaller
from tests.support.sandbox_client import SandboxClient
from tests.support.waiting import wait_for

CHAT = b"/v1/chat/completions"
BODY = b'{"model": "m", "messages": [{"role": "user", "content": "Hello"}]}'
PART = b'--b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'
KEY = b"Authorization: Bearer key-all"
HONEST = b"GET /healthz HTTP/1.1\r\nHost: proxy\r\nX-Request-Id: honest\r\nConnection: close\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked"
FIRST_BYTE_S = 2.0
SHORT_BODY_WAIT = "tests/support/short_body_wait.py"


def head(*fields: bytes, path: bytes = CHAT, method: bytes = b"POST") -> bytes:
    lines = [b"%b %b HTTP/1.1" % (method, path), b"Host: proxy", b"X-Request-Id: first", *fields]
    return b"\r\n".join([*lines, b"", b""])


def post(body: bytes = BODY, *fields: bytes, path: bytes = CHAT) -> bytes:
    return head(b"Content-Length: %d" % len(body), *(fields or (KEY,)), path=path) + body


def exchange(proxy: ProxyProcess, request: bytes) -> list[RawAnswer]:
    with RawCaller(proxy.port) as caller:
        caller.send(request + HONEST)
        return answers_of(caller.read_to_end(20))


def check(
    answers: list[RawAnswer],
    status: int,
    code: str,
    *,
    param: str | None = None,
    ends: bool = False,
    own_id: bool = True,
) -> dict[str, Any]:
    """The error of the first answer; `own_id`: the request's own one comes back."""
    answer, *others = answers
    error: dict[str, Any] = json.loads(answer.body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (answer.status, error["code"], error["param"]) == (status, code, param)
    assert answer.field("Content-Type") == "application/json"
    assert re.fullmatch("first" if own_id else "[0-9a-f]{32}", answer.field("X-Request-Id") or "")
    assert answer.field("WWW-Authenticate") == ("Bearer" if status == 401 else None)
    assert bool(re.fullmatch("[1-9][0-9]?", answer.field("Retry-After") or "")) == (status in (429, 503))
    assert answer.field("Allow") == ("OPTIONS, POST" if status == 405 else None)
    if status >= 500:
        assert not SORTED_WORDS.search(answer.body.decode())
    assert answer.field("Connection") == ("close" if ends else "keep-alive")
    assert [other.field("X-Request-Id") for other in others] == ([] if ends else ["honest"])
    return error


@pytest.fixture
def guarded(farm: ProxyFarm, sandbox: SandboxClient, worker_class: str) -> ProxyProcess:
    return farm.proxy(guarded_config(sandbox, worker_class))


# What the caller sent


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param(b"X-Nothing: x", id="none"),
        pytest.param(b"Authorization: Bearer wrong", id="unknown"),
        pytest.param(b"Authorization: Basic a2V5LWFsbA==", id="other scheme"),
        pytest.param(b"Authorization: key-all", id="no scheme"),
        pytest.param(b"Authorization: Bearer x' OR 1=1--", id="injection"),
        pytest.param(b"Authorization: Bearer " + b"k" * 7000, id="long"),
        pytest.param(b"Authorization: Bearer key-old", id="expired"),
        pytest.param(b"api-key: wrong", id="api-key"),
    ],
)
def test_missing_unknown_or_expired_key_is_401_and_the_same_for_all(
    guarded: ProxyProcess, sandbox: SandboxClient, fields: bytes
) -> None:
    error = check(exchange(guarded, post(BODY, fields)), 401, "invalid_api_key")
    assert error["message"] == "Missing, unknown or expired API key."
    assert sandbox.log() == []


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param([KEY, KEY], id="two lines"),
        pytest.param([KEY + b", Bearer other"], id="a comma"),
        pytest.param([KEY, b"api-key: key-some"], id="two that disagree"),
        pytest.param([b"api-key: key-all", b"api-key: key-some"], id="two api-keys"),
    ],
)
def test_two_credentials_are_400(guarded: ProxyProcess, sandbox: SandboxClient, fields: list[bytes]) -> None:
    check(exchange(guarded, post(BODY, *fields)), 400, "invalid_request")
    assert sandbox.log() == []


def test_model_that_the_key_may_not_use_is_403(guarded: ProxyProcess, sandbox: SandboxClient) -> None:
    request = post(BODY, b"Authorization: Bearer key-some")
    check(exchange(guarded, request), 403, "model_not_allowed", param="model")
    assert sandbox.log() == []


def test_model_that_no_upstream_serves_is_404(guarded: ProxyProcess, sandbox: SandboxClient) -> None:
    check(exchange(guarded, post(b'{"model": "other"}')), 404, "model_not_found", param="model")
    request = head(KEY, path=b"/v1/models/other", method=b"GET")
    check(exchange(guarded, request), 404, "model_not_found", param="model")


@pytest.mark.parametrize("path", [b"/nope", b"//v1/chat/completions", b"/p/healthz", b"/v1/v1/v1/models"])
def test_unknown_route_is_404(guarded: ProxyProcess, path: bytes) -> None:
    check(exchange(guarded, post(path=path)), 404, "not_found")


@pytest.mark.parametrize("method", [b"GET", b"PUT", b"DELETE", b"PATCH", b"TRACE"])
def test_method_that_a_route_does_not_take_is_405(guarded: ProxyProcess, method: bytes) -> None:
    check(exchange(guarded, head(KEY, method=method)), 405, "method_not_allowed")


@pytest.mark.parametrize(
    ("raw", "code", "param"),
    [
        (b"", "invalid_json", None),
        (b"not json", "invalid_json", None),
        (b'{"model": "m"', "invalid_json", None),
        (b'{"model": "m"} x', "invalid_json", None),
        ('{"model": "m"}'.encode("utf-16"), "invalid_json", None),
        (b'{"model": "m\xff"}', "invalid_json", None),
        (b'{"model": "m", "x": "\\ud800"}', "invalid_json", None),
        (b'{"model": "m", "model": "n"}', "invalid_json", None),
        (b'{"model": "m", "mod\\u0065l": "n"}', "invalid_json", None),
        (b'{"model": "m", "x": NaN}', "invalid_json", None),
        (b'{"model": "m", "x": -Infinity}', "invalid_json", None),
        (b'{"model": "m", "x": [1e400]}', "invalid_json", None),
        (b'{"model": "m", "x": ' + b"[" * 400 + b"]" * 400 + b"}", "invalid_json", None),
        (b"[1]", "invalid_request", None),
        (b'"model"', "invalid_request", None),
        (b"null", "invalid_request", None),
        (b"{}", "invalid_request", "model"),
        (b'{"model": 5}', "invalid_request", "model"),
        (b'{"model": null}', "invalid_request", "model"),
        (b'{"model": ""}', "invalid_request", "model"),
        (b'{"model": "m", "stream": "yes"}', "invalid_request", "stream"),
    ],
    ids=lambda value: repr(value[:30]) if isinstance(value, bytes) else None,
)
def test_bad_body_is_400_with_the_fault_named(
    guarded: ProxyProcess, sandbox: SandboxClient, raw: bytes, code: str, param: str | None
) -> None:
    check(exchange(guarded, post(raw)), 400, code, param=param)
    assert sandbox.log() == []


# What is not read to its end


@pytest.mark.parametrize(
    "request_bytes",
    [
        pytest.param(post(b'{"model": "m"}'.ljust(MOST_BYTES + 1)), id="by a byte"),
        pytest.param(head(KEY, b"Content-Length: 1001"), id="by its length, and never sent"),
        pytest.param(head(KEY, b"Content-Length: %d" % 10**30), id="by a length of 31 digits"),
        pytest.param(head(KEY, CHUNKED) + b"3e9\r\n" + b" " * 1001 + b"\r\n0\r\n\r\n", id="in one chunk"),
        pytest.param(head(KEY, CHUNKED) + b"a\r\n          \r\n" * 101 + b"0\r\n\r\n", id="in many chunks"),
        pytest.param(head(KEY, CHUNKED) + b"fffffff\r\n" + b" " * 2000, id="in a chunk that does not end"),
    ],
)
def test_body_too_large_is_413_and_the_last_of_its_connection(
    guarded: ProxyProcess, sandbox: SandboxClient, request_bytes: bytes
) -> None:
    check(exchange(guarded, request_bytes), 413, "body_too_large", ends=True)
    assert sandbox.log() == []


def test_bad_chunks_are_400_and_the_last_of_their_connection(guarded: ProxyProcess, sandbox: SandboxClient) -> None:
    request = head(KEY, CHUNKED) + b"zz\r\nabc\r\n0\r\n\r\n"
    check(exchange(guarded, request), 400, "invalid_request", ends=True)
    assert sandbox.log() == []


def test_head_that_is_no_http_is_400_and_the_last_of_its_connection(guarded: ProxyProcess) -> None:
    check(exchange(guarded, b"nonsense\r\n\r\n"), 400, "invalid_request", ends=True, own_id=False)


@pytest.fixture
def impatient(tmp_path: Path, sandbox: SandboxClient, worker_class: str) -> Iterator[ProxyProcess]:
    """A proxy that waits a second for a body."""
    config = sandbox.config(server={"worker_class": worker_class})
    proxy = ProxyProcess.start(config, tmp_path, {"GUNICORN_CMD_ARGS": f"-c {SHORT_BODY_WAIT}"})
    yield proxy
    proxy.stop()


def test_body_that_does_not_come_in_time_is_408_and_the_last_of_its_connection(
    impatient: ProxyProcess, sandbox: SandboxClient
) -> None:
    request = head(KEY, b"Content-Length: 1000") + BODY
    check(exchange(impatient, request), 408, "body_timeout", ends=True)
    assert sandbox.log() == []
    form = (b"Content-Type: multipart/form-data; boundary=b", b"Content-Length: 1000")
    upload = head(KEY, *form, path=b"/v1/audio/transcriptions") + PART % (b"model", b"m") + PART % (b"file", b"x")
    check(exchange(impatient, upload), 408, "body_timeout", ends=True)
    sandbox.wait_until(lambda state: state["open"] == 0)
    assert [entry["status"] for entry in sandbox.log()] == [400]  # it was on its way, and broken off


# What is used up


def test_rate_of_a_key_used_up_is_429(guarded: ProxyProcess) -> None:
    request = post(BODY, b"Authorization: Bearer key-slow")  # of this test alone
    assert [exchange(guarded, request)[0].status for _ in range(2)] == [200, 200]
    check(exchange(guarded, request), 429, "rate_limit_exceeded")
    assert exchange(guarded, post())[0].status == 200


def test_concurrency_of_a_key_used_up_is_429_until_a_slot_is_free(
    guarded: ProxyProcess, sandbox: SandboxClient
) -> None:
    request = post(BODY, b"Authorization: Bearer key-one")
    sandbox.faults(upstream=[{"kind": "hang", "times": 1}])
    with RawCaller(guarded.port) as caller:
        caller.send(request)
        sandbox.wait_until(lambda state: state["open"] == 1)
        check(exchange(guarded, request), 429, "rate_limit_exceeded")
        assert exchange(guarded, post())[0].status == 200
    sandbox.wait_until(lambda state: state["open"] == 0)
    wait_for(lambda: exchange(guarded, request)[0].status == 200)


@pytest.fixture
def strict(farm: ProxyFarm, sandbox: SandboxClient, worker_class: str, closed_port: int) -> ProxyProcess:
    """A proxy for two requests at a time, and an upstream for the model "refused" that takes no connection."""
    server = {"worker_class": worker_class, "max_concurrent_requests": 2}
    config = sandbox.config(server=server, upstream={"timeouts": {"first_byte_s": FIRST_BYTE_S}})
    base_url = f"http://127.0.0.1:{closed_port}/v1"
    refused = {**config["upstreams"][0], "name": "refused", "base_url": base_url, "models": {"refused": "refused"}}
    return farm.proxy({**config, "upstreams": [refused, *config["upstreams"]]})


@pytest.fixture(scope="module")
def closed_port() -> Iterator[int]:
    """A port that is taken, and where nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield int(sock.getsockname()[1])


def test_full_proxy_is_503_and_still_healthy(strict: ProxyProcess, sandbox: SandboxClient) -> None:
    request = post(BODY[:-1] + b', "stream": true, "sandbox_frames": 100, "sandbox_interval_ms": 100}')
    with RawCaller(strict.port) as one, RawCaller(strict.port) as other:
        one.send(request)
        other.send(request)
        sandbox.wait_until(lambda state: state["open"] == 2)
        check(exchange(strict, post()), 503, "overloaded")  # the honest one behind it asks for the health
    wait_for(lambda: exchange(strict, post())[0].status == 200)


# What stands behind


def test_refused_connection_is_502(strict: ProxyProcess) -> None:
    check(exchange(strict, post(b'{"model": "refused"}')), 502, "upstream_unavailable")


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({"kind": "reset"}, id="reset"),
        pytest.param({"kind": "close"}, id="close"),
        pytest.param({"kind": "gzip"}, id="gzip"),
        pytest.param({"kind": "short"}, id="short body"),
        pytest.param({"kind": "redirect", "location": "/elsewhere"}, id="redirect"),
        pytest.param({"kind": "status", "status": 204}, id="204"),
        pytest.param({"kind": "reply", "content_type": "text/html", "body": "<html>Log in</html>"}, id="HTML"),
        pytest.param({"kind": "raw", "bytes": base64.b64encode(b"garbage\r\n\r\n").decode()}, id="no HTTP"),
    ],
)
def test_nonsense_from_the_upstream_is_502(proxy: ProxyProcess, sandbox: SandboxClient, fault: dict[str, Any]) -> None:
    assert exchange(proxy, post())[0].status == 200
    sandbox.faults(upstream=[fault])
    check(exchange(proxy, post()), 502, "upstream_unavailable")
    sandbox.faults(upstream=[])
    assert exchange(proxy, post())[0].status == 200


def test_fresh_token_that_the_upstream_refuses_is_502(
    farm: ProxyFarm, own_sandbox: SandboxClient, worker_class: str
) -> None:
    proxy = farm.proxy(own_sandbox.config(server={"worker_class": worker_class}))
    own_sandbox.faults(upstream=[{"kind": "refuse_token"}])
    check(exchange(proxy, post()), 502, "upstream_unavailable")
    own_sandbox.faults(upstream=[])
    assert exchange(proxy, post())[0].status == 200


def test_no_first_byte_in_time_is_504_and_the_upstream_is_freed(strict: ProxyProcess, sandbox: SandboxClient) -> None:
    sandbox.faults(upstream=[{"kind": "hang"}])
    check(exchange(strict, post()), 504, "upstream_timeout")
    sandbox.wait_until(lambda state: state["open"] == 0)


def test_dead_issuer_is_503_and_recovers_by_itself(
    farm: ProxyFarm, own_sandbox: SandboxClient, worker_class: str
) -> None:
    own_sandbox.faults(issuer=[{"kind": "status", "status": 500}])
    proxy = farm.proxy(own_sandbox.config(server={"worker_class": worker_class}))
    check(exchange(proxy, post()), 503, "upstream_unavailable")
    assert httpx.get(proxy.url + "/readyz", trust_env=False).status_code == 503
    own_sandbox.faults(issuer=[])
    wait_for(lambda: httpx.get(proxy.url + "/readyz", trust_env=False).status_code == 200, within_s=12)
    assert exchange(proxy, post())[0].status == 200


# The connection


@pytest.mark.parametrize("wanted", [b"Connection: close", b"Connection: Close "])
def test_answer_to_a_caller_that_wants_no_more_is_the_last_of_its_connection(
    guarded: ProxyProcess, wanted: bytes
) -> None:
    check(exchange(guarded, post(BODY, b"X-Nothing: x", wanted)), 401, "invalid_api_key", ends=True)
    check(exchange(guarded, post(b"{", KEY, wanted)), 400, "invalid_json", ends=True)


@pytest.mark.parametrize(
    ("path", "allow"),
    [(CHAT, "OPTIONS, POST"), (b"/v1/models", "GET, HEAD, OPTIONS"), (b"/healthz", "GET, HEAD, OPTIONS")],
)
def test_question_for_the_methods_is_answered_with_them_and_nothing_else(
    proxy: ProxyProcess, path: bytes, allow: str
) -> None:
    answer, honest = exchange(proxy, head(path=path, method=b"OPTIONS"))
    assert (answer.status, answer.field("Content-Length"), answer.body) == (200, "0", b"")
    assert ", ".join(sorted((answer.field("Allow") or "").split(", "))) == allow
    assert (answer.field("Connection"), honest.field("X-Request-Id")) == ("keep-alive", "honest")
