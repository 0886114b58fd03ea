"""The one line of each request, and its place in the counts, however it went: by request ids of the tests' own."""

import re
import signal
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.proxy_process import ProxyProcess
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
    assert in_flight(proxy) == 0


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
    assert in_flight(proxy) == 0


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
