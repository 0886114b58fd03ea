"""The one line of each request, and its place in the counts, however it went: by request ids of the tests' own."""

import json
import re
import signal
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.proxy_process import ProxyFarm, ProxyProcess
from tests.support.raw_answers import answers_of
from tests.support.raw_http import RawCaller
from tests.support.sandbox_client import SandboxClient
from tests.support.waiting import wait_for

CHAT = "/v1/chat/completions"
BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
FRAME = b'data: {"choices":[{"delta":{"content":"Hi"},"finish_reason":"stop"}]}\n\n'
COUNTS = b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":12}}\n\n'
DONE = b"data: [DONE]\n\n"


def line_of(proxy: ProxyProcess, request_id: str) -> dict[str, str]:
    """The facts of the one line with this id, once it is there."""

    def lines() -> list[str]:
        return [line for line in proxy.access_lines() if f" request_id={request_id} " in line]

    wait_for(lambda: bool(lines()))
    [line] = lines()
    return dict(word.split("=", 1) for word in re.findall(r"\S+=\S+", line))


def counted(proxy: ProxyProcess, status: int) -> int:
    """Requests without a route or an upstream that ended so."""
    page = httpx.get(proxy.url + "/metrics", trust_env=False).text
    match = re.search(rf'(?m)^llm_proxy_requests_total{{route="-",status="{status}",upstream="-"}} (\S+)$', page)
    return int(float(match[1])) if match else 0


def in_flight(proxy: ProxyProcess) -> float:
    """Without the request that asks."""
    page = httpx.get(proxy.url + "/metrics", trust_env=False).text
    match = re.search(r"(?m)^llm_proxy_in_flight (\S+)$", page)
    assert match
    return float(match[1]) - 1


@pytest.fixture
def request_id() -> str:
    return uuid.uuid4().hex


@pytest.mark.parametrize(
    ("pieces", "outcome", "frames", "has_usage"),
    [
        pytest.param([FRAME, FRAME, COUNTS, DONE], "done", 4, True, id="clean"),
        pytest.param([FRAME + FRAME + COUNTS + DONE], "done", 4, True, id="in one piece"),
        pytest.param([FRAME[:20], FRAME[20:] + COUNTS[:9], COUNTS[9:], DONE], "done", 3, True, id="cut anywhere"),
        pytest.param([FRAME.replace(b"\n", b"\r\n"), COUNTS, DONE], "done", 3, True, id="CRLF"),
        pytest.param([FRAME, b": hello\n\n", DONE], "done", 3, False, id="a comment"),
        pytest.param([FRAME], "done", 2, False, id="[DONE] is ours"),
        pytest.param([FRAME.replace(b'"stop"', b"null")], "cut", 2, False, id="no end"),
    ],
)
def test_line_of_a_stream_tells_what_the_caller_got(
    proxy: ProxyProcess,
    sandbox: SandboxClient,
    request_id: str,
    pieces: list[bytes],
    outcome: str,
    frames: int,
    has_usage: bool,
) -> None:
    sandbox.frames(*pieces)
    body = {**BODY, "stream": True}
    got = httpx.post(proxy.url + CHAT, json=body, headers={"X-Request-Id": request_id}, trust_env=False).content
    line = line_of(proxy, request_id)
    assert (line["outcome"], line["status"], line["upstream"]) == (outcome, "200", "llm")
    assert (line["frames"], line["bytes"]) == (str(frames), str(len(got)))
    assert got.count(b"\n\n") == frames
    usage = (line.get("prompt_tokens"), line.get("completion_tokens"))
    assert usage == (("9", "12") if has_usage else (None, None))
    wait_for(lambda: in_flight(proxy) == 0)  # the scrape before is counted out just after its last byte


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", CHAT, BODY, 200),
        ("POST", CHAT, {}, 400),
        ("POST", "/v1/embeddings", {"model": "e", "input": ["a"]}, 200),
        ("GET", "/v1/models", None, 200),
        ("HEAD", "/v1/models", None, 200),
        ("OPTIONS", CHAT, None, 200),
        ("GET", "/healthz", None, 200),
        ("DELETE", CHAT, None, 405),
        ("GET", "/nowhere", None, 404),
    ],
    ids=["chat", "bad body", "embeddings", "models", "HEAD", "OPTIONS", "health", "wrong method", "no route"],
)
def test_each_request_has_one_line_with_its_status(
    proxy: ProxyProcess,
    sandbox: SandboxClient,
    request_id: str,
    method: str,
    path: str,
    body: dict[str, Any] | None,
    status: int,
) -> None:
    answer = httpx.request(method, proxy.url + path, json=body, headers={"X-Request-Id": request_id}, trust_env=False)
    assert answer.status_code == status
    line = line_of(proxy, request_id)
    assert (line["method"], line["status"]) == (method, str(status))
    if method != "HEAD":  # its line tells how long the body would have been
        assert line["bytes"] == str(len(answer.content))
    wait_for(lambda: in_flight(proxy) == 0)  # the scrape before is counted out just after its last byte


BAD_HEADS = [
    pytest.param(b"marked-7\r\n\r\n", 400, "InvalidRequestLine", id="no HTTP"),
    pytest.param(b"GET /marked-7 HTTP/1.1\r\n\r\n", 400, "InvalidHeader", id="no Host"),
    pytest.param(b"GET /" + b"marked-7" * 1000 + b" HTTP/1.1\r\n\r\n", 414, "LimitRequestLine", id="a long path"),
    pytest.param(b"GET / HTTP/1.1\r\nHost: p\r\nExpect: marked-7\r\n\r\n", 417, "ExpectationFailed", id="Expect"),
    pytest.param(
        b"GET / HTTP/1.1\r\nHost: p\r\nX: " + b"marked-7" * 2000 + b"\r\n\r\n",
        431,
        "LimitRequestHeaders",
        id="a long field",
    ),
]


@pytest.mark.parametrize(("head", "status", "cause"), BAD_HEADS)
@pytest.mark.parametrize("line_format", ["text", "json"])
def test_head_that_is_refused_has_its_line_and_its_count_and_nothing_of_its_text(
    farm: ProxyFarm,
    sandbox: SandboxClient,
    worker_class: str,
    line_format: str,
    head: bytes,
    status: int,
    cause: str,
) -> None:
    proxy = farm.proxy(sandbox.config(server={"worker_class": worker_class}, logging={"format": line_format}))
    since, before = proxy.logged_bytes(), counted(proxy, status)
    with RawCaller(proxy.port) as caller:
        caller.send(head)
        [answer] = answers_of(caller.read_to_end())
    assert answer.status == status
    wait_for(lambda: counted(proxy, status) == before + 1)
    told = [line for line in proxy.log(since).splitlines() if str(answer.field("X-Request-Id")) in line]
    [line] = told
    expected = {
        "request_id": answer.field("X-Request-Id"),
        **{"caller": "-", "method": "-", "route": "-", "model": "-", "upstream": "-"},
        **{"status": status, "outcome": "error", "bytes": len(answer.body), "cause": cause},
    }
    facts = json.loads(line) if line_format == "json" else dict(re.findall(r"(\S+)=(\S+)", line))
    assert {name: str(facts[name]) for name in expected} == {name: str(value) for name, value in expected.items()}
    assert "duration_ms" in facts
    assert "marked-7" not in proxy.log(since)
    wait_for(lambda: in_flight(proxy) == 0)  # the scrape before is counted out just after its last byte


KEY = "sk-x4Kk0NSGUh4CzY8DLF53HIxVR4eqvqfS5I"


@pytest.mark.parametrize(
    ("model", "status", "told"),
    [
        pytest.param("known-1", 200, "known-1", id="served"),
        pytest.param("any/known-2", 200, "any/known-2", id="served by a wildcard"),
        pytest.param(f"any/{KEY}", 200, "any/***", id="a key that a wildcard serves"),
        pytest.param(KEY, 404, "-", id="a key"),
        pytest.param("Please-summarise-marked-7", 404, "-", id="a prompt"),
    ],
)
def test_model_is_told_once_an_upstream_is_found_and_without_a_key(
    farm: ProxyFarm, sandbox: SandboxClient, request_id: str, model: str, status: int, told: str
) -> None:
    proxy = farm.proxy(sandbox.config(upstream={"models": {"known-1": "m", "any/*": "*"}}))
    fields = {"X-Request-Id": request_id}
    answer = httpx.post(proxy.url + CHAT, json={**BODY, "model": model}, headers=fields, trust_env=False)
    assert answer.status_code == status
    assert line_of(proxy, request_id)["model"] == told
    assert KEY not in proxy.log()
    assert "marked-7" not in proxy.log()


def test_key_given_as_an_id_is_in_neither_the_log_nor_the_answer(proxy: ProxyProcess, sandbox: SandboxClient) -> None:
    answer = httpx.post(proxy.url + CHAT, json=BODY, headers={"X-Request-Id": KEY}, trust_env=False)
    assert answer.status_code == 200
    assert KEY not in str(answer.headers)
    assert line_of(proxy, answer.headers["X-Request-Id"])["status"] == "200"
    assert KEY not in proxy.log()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_request_whose_worker_ends_before_an_answer_has_its_line(
    tmp_path: Path, sandbox: SandboxClient, request_id: str, number: signal.Signals
) -> None:
    sandbox.faults(upstream=[{"kind": "hang"}])
    proxy = ProxyProcess.start(sandbox.config(server={"drain_s": 1}), tmp_path)
    try:
        with RawCaller(proxy.port) as caller:
            caller.post(CHAT, BODY, f"X-Request-Id: {request_id}")
            sandbox.wait_until(lambda state: state["open"] == 1)
            proxy.signal(number)  # with SIGHUP a new worker comes; the old one ends after drain_s
            assert caller.read_to_end() == b""
        line = line_of(proxy, request_id)
        assert (line["outcome"], line["status"], line["upstream"]) == ("cut", "0", "llm")
        assert "Traceback" not in proxy.log()
        sandbox.wait_until(lambda state: state["open"] == 0)
        if number == signal.SIGHUP:
            wait_for(lambda: in_flight(proxy) == 0)
    finally:
        proxy.stop()
