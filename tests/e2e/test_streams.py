"""Event streams: frames as they come, whatever the upstream does, and nothing left open when somebody goes away."""

import hashlib
import json
import re
from typing import Any

import httpx
import openai
import pytest

from tests.support.proxy_process import ProxyProcess
from tests.support.raw_http import RawCaller
from tests.support.sandbox_client import SandboxClient

CHAT = "/v1/chat/completions"
BROKE_OFF = b'data: {"error": {"message": "The upstream stream broke off."'
DONE = b"data: [DONE]\n\n"
CLEAN_FRAME = re.compile(rb"(?:data: [^\r\n]+|:[^\r\n]*)\n\n")


def body(**members: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": "Hello"}], "stream": True, **members}


def read_stream(proxy: ProxyProcess, **members: Any) -> bytes:
    answer = httpx.post(proxy.url + CHAT, json=body(**members), timeout=20, trust_env=False)
    assert answer.status_code == 200
    return answer.content


def frames_of(stream: bytes) -> list[bytes]:
    """The stream's frames; every byte must belong to a clean one."""
    frames = CLEAN_FRAME.findall(stream)
    assert b"".join(frames) == stream
    return frames


def test_the_head_says_event_stream_and_forbids_buffering(proxy: ProxyProcess) -> None:
    with httpx.stream("POST", proxy.url + CHAT, json=body(), trust_env=False) as answer:
        assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["Cache-Control"] == "no-cache"
        assert answer.headers["X-Accel-Buffering"] == "no"
        assert "Content-Length" not in answer.headers


def test_bytes_are_what_the_upstream_sent_when_its_frames_are_clean(
    proxy: ProxyProcess, sandbox: SandboxClient
) -> None:
    sent = [f'data: {{"choices": [{{"delta": {{"content": "zë {n}"}}}}]}}\n\n'.encode() for n in range(50)] + [DONE]
    sandbox.frames(*sent)
    assert read_stream(proxy) == b"".join(sent)


def test_typed_events_of_a_response_are_not_touched(proxy: ProxyProcess, sandbox: SandboxClient) -> None:
    asked = {"model": "m", "input": "Hello", "stream": True}
    answer = httpx.post(f"{proxy.url}/v1/responses", json=asked, timeout=20, trust_env=False)
    assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert answer.content.startswith(b"event: response.created\ndata: {")
    assert hashlib.sha256(answer.content).hexdigest() == sandbox.last()["answer_sha256"]


def test_a_cut_response_ends_with_the_error_event(proxy: ProxyProcess, sandbox: SandboxClient) -> None:
    sandbox.faults(upstream=[{"kind": "cut", "frames": 2}])
    asked = {"model": "m", "input": "Hello", "stream": True}
    answer = httpx.post(f"{proxy.url}/v1/responses", json=asked, timeout=20, trust_env=False)
    *events, last, _ = answer.content.split(b"\n\n")
    assert [event.partition(b"\n")[0] for event in events[:1]] == [b"event: response.created"]
    assert last.startswith(BROKE_OFF)


def test_the_first_frame_arrives_before_the_second_leaves_the_upstream(
    proxy: ProxyProcess, sandbox: SandboxClient
) -> None:
    with RawCaller(proxy.port) as caller:
        caller.post(CHAT, body(sandbox_frames=3, sandbox_interval_ms=1500))
        caller.read_until(b"\n\n\r\n")
        assert sandbox.last()["frames_sent"] == 1


@pytest.mark.parametrize("line_end", [b"\r\n", b"\r"], ids=["CRLF", "CR"])
def test_odd_frames_become_one_data_line_each(proxy: ProxyProcess, sandbox: SandboxClient, line_end: bytes) -> None:
    lines = [b"event: x", b"id: 7", b"retry: 5", b'data: {"choices":', b'data: [{"finish_reason":"stop"}]}', b""]
    text = b"\xef\xbb\xbf" + b"".join(line + line_end for line in [*lines, b": ping", b"data: [DONE]", b""])
    sandbox.frames(*(text[at : at + 3] for at in range(0, len(text), 3)))
    frames = frames_of(read_stream(proxy))
    assert json.loads(frames[0][6:]) == {"choices": [{"finish_reason": "stop"}]}
    assert frames[1:] == [b": ping\n\n", DONE]


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "cut", "frames": 2},
        {"kind": "cut", "frames": 2, "half": True},
        {"kind": "stream_reset", "frames": 2, "half": True},
        {"kind": "no_finish"},
        {"kind": "stall", "frames": 2},
    ],
    ids=["cut between frames", "cut in a frame", "reset", "clean end without finish_reason", "stall"],
)
def test_a_broken_stream_ends_with_one_error_event_and_no_done(
    proxy: ProxyProcess, sandbox: SandboxClient, fault: dict[str, Any]
) -> None:
    sandbox.faults(upstream=[fault])
    frames = frames_of(read_stream(proxy))
    assert frames[-1].startswith(BROKE_OFF)
    assert sum(frame.startswith(BROKE_OFF) for frame in frames) == 1
    assert DONE not in frames
    sandbox.wait_until(lambda state: state["open"] == 0)


def test_a_broken_stream_raises_in_the_openai_client(proxy: ProxyProcess, sandbox: SandboxClient) -> None:
    sandbox.faults(upstream=[{"kind": "cut", "frames": 2}])
    client = openai.OpenAI(base_url=proxy.api, api_key="any", max_retries=0)
    messages: Any = [{"role": "user", "content": "Hello"}]
    with pytest.raises(openai.APIError, match="broke off"):
        list(client.chat.completions.create(model="m", messages=messages, stream=True))


def test_a_missing_done_is_added_after_a_finish_reason(proxy: ProxyProcess, sandbox: SandboxClient) -> None:
    sandbox.faults(upstream=[{"kind": "no_done"}])
    for options in ({}, {"stream_options": {"include_usage": True}}):
        frames = frames_of(read_stream(proxy, **options))
        assert frames[-1] == DONE
        assert not any(frame.startswith(BROKE_OFF) for frame in frames)


def test_a_silent_stream_gets_comments_and_still_ends_well(
    farm: Any, sandbox: SandboxClient, worker_class: str
) -> None:
    proxy = farm.proxy(sandbox.config(server={"worker_class": worker_class}, upstream={"keepalive_comment_s": 0.3}))
    frames = frames_of(read_stream(proxy, sandbox_frames=3, sandbox_interval_ms=1000))
    assert frames.count(b": keep-alive\n\n") >= 2
    assert frames[-1] == DONE


@pytest.mark.parametrize("leave", ["close", "reset"])
@pytest.mark.parametrize("streamed", [True, False], ids=["mid-stream", "waiting for the answer"])
def test_a_caller_that_goes_away_frees_the_upstream_within_a_second(
    proxy: ProxyProcess, sandbox: SandboxClient, leave: str, streamed: bool
) -> None:
    if streamed:
        sandbox.faults(upstream=[{"kind": "stall", "frames": 2}])
    else:
        sandbox.faults(upstream=[{"kind": "hang"}])
    caller = RawCaller(proxy.port)
    caller.post(CHAT, body(stream=streamed))
    if streamed:
        caller.read_until(b"\n\n\r\n")
    sandbox.wait_until(lambda state: state["requests"] == state["open"] == 1)
    getattr(caller, leave)()
    assert sandbox.wait_until(lambda state: state["open"] == 0) < 1.0
    assert sandbox.last()["end"] == "caller_gone"


def test_a_caller_that_goes_away_is_in_the_access_line(proxy: ProxyProcess, sandbox: SandboxClient) -> None:
    sandbox.faults(upstream=[{"kind": "stall", "frames": 2}])
    with RawCaller(proxy.port) as caller:
        caller.post(CHAT, body(), "X-Request-Id: gone-1")
        caller.read_until(b"\n\n\r\n")
    sandbox.wait_until(lambda state: state["open"] == 0)
    httpx.get(proxy.url + "/healthz", trust_env=False)
    lines = [line for line in proxy.access_lines() if "request_id=gone-1 " in line]
    assert len(lines) == 1
    assert "outcome=caller_gone" in lines[0]


def test_connections_are_used_again_after_streams(proxy: ProxyProcess, sandbox: SandboxClient) -> None:
    read_stream(proxy)
    before = sandbox.state()["connections"]
    for _ in range(10):
        assert read_stream(proxy).endswith(DONE)
    # One more at most: a next request may come before the end of the stream before it has been read.
    assert sandbox.state()["connections"] <= before + 1


def test_json_where_a_stream_was_asked_passes_when_it_is_a_completion(
    proxy: ProxyProcess, sandbox: SandboxClient
) -> None:
    completion = '{"object": "chat.completion", "choices": [{"message": {"content": "x"}}]}'
    sandbox.faults(upstream=[{"kind": "reply", "body": completion}])
    assert read_stream(proxy) == completion.encode()
