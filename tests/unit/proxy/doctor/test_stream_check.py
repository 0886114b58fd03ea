import time
from collections.abc import Callable

import httpx2
import pytest

from proxy.doctor.report import Report
from proxy.doctor.stream_check import report_stream
from proxy.doctor.upstream_client import Answer
from proxy.upstreams.answer_body import Timeouts
from proxy.upstreams.transport import SocketTransport
from tests.support.scripted_upstream import LIMIT_S, ScriptedUpstream, Step, close, reset

_TEXT = b'data: {"choices":[{"delta":{"content":"s3cret-mark"},"finish_reason":null}]}\n\n'
_LAST = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
_DONE = b"data: [DONE]\n\n"
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nConnection: close\r\n\r\n"
_HEAD_WITH_LENGTH = _HEAD.replace(b"Connection: close", b"Content-Length: 9999")


@pytest.fixture
def check(report: Report, server: ScriptedUpstream) -> Callable[..., None]:
    """The step, fed with what a server sends."""

    def check(*steps: Step, idle_s: float = LIMIT_S) -> None:
        server.answer(*steps)
        transport = SocketTransport(
            httpx2.URL(server.url), tls=None, timeouts=Timeouts(LIMIT_S, LIMIT_S, idle_s, LIMIT_S)
        )
        response = transport.handle_request(httpx2.Request("POST", server.url, content=b"{}"))
        stream = response.extensions["answer_body"]
        answer = Answer(200, response.headers, time.monotonic(), 0.005, b"", stream)
        report_stream(report, answer, stream, server.host)
        transport.close()
        server.wait_until_left(0)

    return check


@pytest.mark.parametrize(
    ("steps", "begin", "end"),
    [
        pytest.param([_TEXT, _LAST, _DONE, close], "ok", "2 frames, [DONE]", id="whole"),
        pytest.param([_TEXT + _LAST + _DONE, close], "ok", "2 frames, [DONE]", id="in-one-piece"),
        pytest.param([b": hello\n\n", _LAST, _DONE, close], "ok", "1 frames, [DONE]", id="comment-is-no-frame"),
        pytest.param([_TEXT, _LAST, close], "warn", "no [DONE] at the end: the proxy adds it", id="no-done"),
        pytest.param([_TEXT, close], "FAIL", "cut by the upstream or by a gateway before it", id="no-end"),
        pytest.param([close], "FAIL", "cut by the upstream or by a gateway before it", id="nothing"),
        pytest.param([_DONE, close], "FAIL", "[DONE] and nothing before it", id="done-alone"),
        pytest.param(
            [_TEXT, b'data: {"error": {"message": "s3cret-mark"}}\n\n', close], "FAIL", "upstream's", id="error"
        ),
        pytest.param([b"data: " + b"x" * 2**20, close], "FAIL", "longer than 1048576 bytes", id="frame-too-long"),
    ],
)
def test_stream_is_told_by_its_end(
    check: Callable[..., None], lines: list[str], steps: list[Step], begin: str, end: str
) -> None:
    check(_HEAD, *steps)
    [line] = lines
    assert line.startswith(f"{begin:<4}  stream: 200 in 5 ms, ")
    assert line.endswith(end)


@pytest.mark.parametrize("ending", [close, reset])
def test_cut_stream_is_told_with_the_frames_before(check: Callable[..., None], lines: list[str], ending: Step) -> None:
    check(_HEAD_WITH_LENGTH + _TEXT + _TEXT, ending)
    assert lines[0].startswith("FAIL  stream: 200 in 5 ms, broken off after ")


def test_stalled_stream_is_told(check: Callable[..., None], lines: list[str]) -> None:
    check(_HEAD_WITH_LENGTH + _TEXT, idle_s=0.2)
    assert lines[0].startswith("FAIL  stream: 200 in 5 ms, broken off after 1 frames: the answer stalled")


def test_answer_that_is_no_stream_is_a_warning(check: Callable[..., None], lines: list[str]) -> None:
    check(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}", close)
    assert lines == ["warn  stream: 200 in 5 ms, application/json, where text/event-stream was asked for"]
