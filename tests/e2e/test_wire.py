"""Answers as they stand on the wire: how they are framed, and that each connection is good for what comes next."""

import json
import re
import socket
import struct
import time
from email.utils import parsedate_to_datetime

import pytest

from tests.support.proxy_process import ProxyFarm, ProxyProcess
from tests.support.raw_http import RawCaller, field_of, status_of
from tests.support.sandbox_client import SandboxClient

CHAT = "/v1/chat/completions"
BODY = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
ORIGIN = "https://chat.example.com"
SPEECH = {"model": "m", "input": "Hello", "voice": "x"}
FRAME = b'data: {"choices":[{"delta":{"content":"Hi"},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"
_TCPI_DATA_SEGS_IN = struct.Struct("@I")
_TCPI_DATA_SEGS_IN_AT = 152  # offset in Linux's struct tcp_info


def segments(caller: RawCaller) -> int:
    """How many segments with bytes have come: on loopback one for each small write, however late they are read."""
    info = caller.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    return int(_TCPI_DATA_SEGS_IN.unpack_from(info, _TCPI_DATA_SEGS_IN_AT)[0])


def read_answer(caller: RawCaller) -> tuple[bytes, bytes]:
    """The next answer's head and its body, taken out of its framing."""
    head, _, body = caller.read_until(b"\r\n\r\n").partition(b"\r\n\r\n")
    if field_of(head, "Transfer-Encoding") == "chunked":
        while not body.endswith(b"\r\n0\r\n\r\n") and body != b"0\r\n\r\n":
            body += caller.read_until(b"\n")
        return head, without_chunks(body)
    while len(body) < int(field_of(head, "Content-Length") or 0):
        piece = caller.sock.recv(65536)
        assert piece
        body += piece
    return head, body


def without_chunks(body: bytes) -> bytes:
    """All of it must be chunks without an extension, and the last one the last bytes."""
    whole = b""
    while True:
        size, _, rest = body.partition(b"\r\n")
        assert re.fullmatch(rb"[0-9A-F]+", size)
        chunk, body = rest[: int(size, 16)], rest[int(size, 16) :]
        assert body.startswith(b"\r\n")
        body = body[2:]
        whole += chunk
        if not chunk:
            assert body == b""
            return whole


def get(caller: RawCaller, path: str, method: str = "GET", *fields: str) -> None:
    caller.send("\r\n".join([f"{method} {path} HTTP/1.1", "Host: proxy", *fields, "", ""]).encode())


# In one piece


def test_small_answers_come_in_one_segment_each(proxy: ProxyProcess, sandbox: SandboxClient) -> None:
    with RawCaller(proxy.port) as caller:
        for count in range(1, 4):
            caller.post(CHAT, BODY)
            head, body = read_answer(caller)
            assert (status_of(head), body[:1]) == (200, b"{")
            assert segments(caller) == count
        caller.post(CHAT, b"{")
        assert status_of(read_answer(caller)[0]) == 400
        assert segments(caller) == 4


def test_head_of_a_stream_comes_in_one_segment_with_its_first_frame(
    proxy: ProxyProcess, sandbox: SandboxClient
) -> None:
    with RawCaller(proxy.port) as caller:
        caller.post(CHAT, {**BODY, "stream": True, "sandbox_frames": 2, "sandbox_interval_ms": 1500})
        caller.read_until(b"\n\n\r\n")
        assert segments(caller) == 1


# Framing


@pytest.mark.parametrize("size", [1, 65_000, 65_536, 65_537, 1_000_000])
def test_answer_of_any_size_is_whole_and_the_connection_is_used_again(
    proxy: ProxyProcess, sandbox: SandboxClient, size: int
) -> None:
    answer = '{"choices": ["' + "x" * size + '"]}'
    sandbox.faults(upstream=[{"kind": "reply", "body": answer}])
    with RawCaller(proxy.port) as caller:
        for _ in range(2):
            caller.post(CHAT, BODY)
            head, body = read_answer(caller)
            assert field_of(head, "Content-Length") == str(len(answer))
            assert body == answer.encode()


def test_stream_ends_with_the_last_chunk_and_the_connection_is_used_again(
    proxy: ProxyProcess, sandbox: SandboxClient
) -> None:
    sandbox.frames(FRAME, FRAME + DONE)
    with RawCaller(proxy.port) as caller:
        for _ in range(2):
            caller.post(CHAT, {**BODY, "stream": True})
            head, body = read_answer(caller)
            assert field_of(head, "Connection") == "keep-alive"
            assert body == FRAME + FRAME + DONE


def test_body_in_pieces_without_a_byte_is_an_empty_one(proxy: ProxyProcess, sandbox: SandboxClient) -> None:
    # The sandbox closes behind it, so it has to say so: else the next request may meet the close on its way.
    sandbox.raw(b"HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    with RawCaller(proxy.port) as caller:
        for _ in range(2):
            caller.post("/v1/audio/speech", SPEECH)
            head, body = read_answer(caller)
            assert (status_of(head), field_of(head, "Content-Type"), body) == (200, "audio/mpeg", b"")


def test_body_in_pieces_that_breaks_off_has_no_last_chunk(proxy: ProxyProcess, sandbox: SandboxClient) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\nContent-Length: 100\r\n\r\n"
    sandbox.raw(head, b"first", pause_ms=100)
    with RawCaller(proxy.port) as caller:
        caller.post("/v1/audio/speech", SPEECH)
        answer = caller.read_to_end()
    assert answer.endswith(b"\r\n\r\n5\r\nfirst\r\n")


@pytest.mark.parametrize("path", ["/healthz", "/v1/models", "/nowhere"])
def test_answer_to_head_has_the_length_of_the_body_and_not_the_body(
    proxy: ProxyProcess, sandbox: SandboxClient, path: str
) -> None:
    with RawCaller(proxy.port) as caller:
        get(caller, path)
        whole, body = read_answer(caller)
        get(caller, path, "HEAD")
        head = caller.read_until(b"\r\n\r\n")
        assert status_of(head) == status_of(whole)
        assert field_of(head, "Content-Length") == str(len(body))
        get(caller, path)
        assert read_answer(caller)[1] == body  # at once behind the head


def test_answer_of_204_has_neither_body_nor_length(farm: ProxyFarm, sandbox: SandboxClient, worker_class: str) -> None:
    proxy = farm.proxy(sandbox.config(server={"worker_class": worker_class, "allowed_origins": [ORIGIN]}))
    with RawCaller(proxy.port) as caller:
        get(caller, CHAT, "OPTIONS", f"Origin: {ORIGIN}", "Access-Control-Request-Method: POST")
        head = caller.read_until(b"\r\n\r\n")
        assert status_of(head) == 204
        assert (field_of(head, "Content-Length"), field_of(head, "Transfer-Encoding")) == (None, None)
        get(caller, "/healthz")
        assert read_answer(caller)[1].startswith(b"{")


def test_stream_to_a_caller_of_1_0_has_no_chunks_and_ends_with_the_connection(
    proxy: ProxyProcess, sandbox: SandboxClient
) -> None:
    sandbox.frames(FRAME, DONE)
    with RawCaller(proxy.port) as caller:
        body = json.dumps({**BODY, "stream": True}).encode()
        caller.send(b"POST %s HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % (CHAT.encode(), len(body)) + body)
        head, _, stream = caller.read_to_end().partition(b"\r\n\r\n")
    assert (status_of(head), field_of(head, "Transfer-Encoding"), field_of(head, "Connection")) == (200, None, "close")
    assert stream == FRAME + DONE


def test_requests_that_come_at_once_are_answered_one_after_the_other(
    proxy: ProxyProcess, sandbox: SandboxClient
) -> None:
    with RawCaller(proxy.port) as caller:
        caller.post(CHAT, {**BODY, "stream": True, "sandbox_frames": 3})
        get(caller, "/healthz")
        caller.post(CHAT, BODY)
        answers = caller.read_until(b'"usage"', within_s=10)
    stream, health, chat = re.split(rb"(?=HTTP/1\.1 200 OK)", answers)[1:]
    assert without_chunks(stream.partition(b"\r\n\r\n")[2]).endswith(DONE)
    assert health.endswith(b'{"status":"ok"}\n')
    assert b'"choices"' in chat


@pytest.mark.parametrize("size", [1, 1000, 60_000])
def test_body_that_nobody_read_is_no_part_of_the_next_request(proxy: ProxyProcess, size: int) -> None:
    with RawCaller(proxy.port) as caller:
        caller.post("/nowhere", b"G" * size)
        assert status_of(read_answer(caller)[0]) == 404
        get(caller, "/healthz")
        assert status_of(read_answer(caller)[0]) == 200


def test_date_is_one_of_http_and_of_today(proxy: ProxyProcess) -> None:
    with RawCaller(proxy.port) as caller:
        get(caller, "/healthz")
        date = field_of(read_answer(caller)[0], "Date")
    assert date is not None
    assert re.fullmatch(r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT", date)
    assert abs(parsedate_to_datetime(date).timestamp() - time.time()) < 3600
