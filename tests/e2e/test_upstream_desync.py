"""Answers of an upstream whose end is in doubt: no caller may ever get what belongs to another request.

The upstream keeps its connections open, so that only the proxy decides which of them are good for a next request.
"""

import fcntl
import socket
import termios
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.always_true import always_true
from tests.support.proxy_process import ProxyFarm, ProxyProcess
from tests.support.raw_answers import answers_of
from tests.support.raw_http import RawCaller
from tests.support.sandbox_client import SandboxClient
from tests.support.scripted_upstream import ScriptedUpstream, close
from tests.support.waiting import wait_for

CHAT = "/v1/chat/completions"
BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
FIRST = b'{"choices":["first"]}'
OWN = b'{"choices":["the next request\'s own"]}'
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
FRAME = b'data: {"choices":[{"delta":{"content":"Hi"},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"
BROKE_OFF = b'data: {"error": {"message": "The upstream stream broke off."'
LAST = b"0\r\n\r\n"


def ok(body: bytes) -> bytes:
    return HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body


FOREIGN = ok(b'{"choices":["marked-foreign"]}')


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@pytest.fixture(scope="module")
def _upstream_of_module() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as upstream:
        yield upstream


@pytest.fixture
def upstream(_upstream_of_module: ScriptedUpstream) -> ScriptedUpstream:
    _upstream_of_module.forget()
    return _upstream_of_module


@pytest.fixture
def desk(farm: ProxyFarm, sandbox: SandboxClient, upstream: ScriptedUpstream, worker_class: str) -> ProxyProcess:
    """A proxy before that upstream."""
    timeouts = {"connect_s": 2, "first_byte_s": 2, "idle_s": 1, "total_s": 10}
    section = {"base_url": f"{upstream.url}/v1", "token_source": None, "timeouts": timeouts}
    return farm.proxy(sandbox.config(server={"worker_class": worker_class}, upstream=section))


def ask(proxy: ProxyProcess, **members: Any) -> httpx.Response:
    return httpx.post(proxy.url + CHAT, json={**BODY, **members}, trust_env=False, timeout=20)


def check_next(proxy: ProxyProcess, upstream: ScriptedUpstream, *, same_connection: bool) -> None:
    """That the next request gets its own answer, over a new connection or the one before."""
    upstream.answer(ok(OWN))
    answer = ask(proxy)
    assert (answer.status_code, answer.content) == (200, OWN)
    before, now = upstream.requests[-2:]
    assert (before.connection == now.connection) is same_connection
    if not same_connection:
        upstream.wait_until_left(before.connection)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(ok(FIRST) + b"x", id="a byte behind the body"),
        pytest.param(ok(FIRST) + b"\r\n\r\nx", id="a byte behind line ends"),
        pytest.param(ok(FIRST) + FOREIGN, id="two answers"),
        pytest.param(ok(FIRST) + FOREIGN + FOREIGN, id="three answers"),
        pytest.param(HEAD + b"Content-Length: 5\r\n\r\n" + FIRST, id="a body longer than its length"),
        pytest.param(HEAD + b"Content-Length: 0\r\n\r\n" + FIRST, id="a body where there is none"),
        pytest.param(CHUNKED + chunk(FIRST) + LAST + b"x", id="a byte behind the last chunk"),
        pytest.param(CHUNKED + chunk(FIRST) + LAST + FOREIGN, id="an answer behind the last chunk"),
        pytest.param(
            HEAD + b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n" % len(FIRST) + chunk(FIRST) + LAST,
            id="length and chunked",
        ),
        pytest.param(
            HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: %d\r\n\r\n" % len(FIRST) + FIRST,
            id="chunked and length",
        ),
        pytest.param(HEAD + b"Content-Length: 21\r\nContent-Length: 5\r\n\r\n" + FIRST, id="two lengths"),
        pytest.param(HEAD + b"Content-Length: 21, 5\r\n\r\n" + FIRST, id="lengths in a list"),
        pytest.param(HEAD + b"Content-Length: +21\r\n\r\n" + FIRST, id="a sign"),
        pytest.param(HEAD + b"Content-Length: 0x15\r\n\r\n" + FIRST, id="a length in hex"),
        pytest.param(HEAD + b"Content-Length: -1\r\n\r\n" + FIRST, id="a length below 0"),
        pytest.param(HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n" + FIRST, id="a length past 2**64"),
        pytest.param(HEAD + b"Content-Length : 21\r\n\r\n" + FIRST, id="a blank before the colon"),
        pytest.param(HEAD + b"X: a\r\n Content-Length: 21\r\n\r\n" + FIRST + FOREIGN, id="a folded length"),
        pytest.param(HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + chunk(FIRST) + LAST, id="gzip, chunked"),
        pytest.param(HEAD + b"Transfer-Encoding: chunked, gzip\r\n\r\n" + chunk(FIRST) + LAST, id="chunked, gzip"),
        pytest.param(HEAD + b"Transfer-Encoding: xchunked\r\n\r\n" + chunk(FIRST) + LAST, id="xchunked"),
        pytest.param(CHUNKED + b"+15\r\n" + FIRST + b"\r\n" + LAST, id="a chunk's size with a sign"),
        pytest.param(CHUNKED + b"0x15\r\n" + FIRST + b"\r\n" + LAST, id="a chunk's size in 0x"),
        pytest.param(CHUNKED + b"1_5\r\n" + FIRST + b"\r\n" + LAST, id="a chunk's size with an underscore"),
        pytest.param(CHUNKED + b"f" * 17 + b"\r\n" + FIRST + b"\r\n" + LAST, id="a chunk's size past 2**64"),
        pytest.param(CHUNKED + b"15\r\n" + FIRST + b"XX" + LAST, id="no line end behind a chunk"),
        pytest.param(CHUNKED + b"15\n" + FIRST + b"\n" + b"0\n\n", id="chunks with LF"),
        pytest.param(CHUNKED + b"5\r\n" + FIRST + b"\r\n" + LAST, id="a chunk longer than its size"),
        pytest.param(ok(FIRST).replace(b"\r\n", b"\n"), id="LF"),
        pytest.param(ok(FIRST).replace(b"OK\r\n", b"OK\r\nX: a\rb\r\n"), id="CR in a field"),
        pytest.param(ok(FIRST).replace(b"OK\r\n", b"OK\r\nX: a\0b\r\n"), id="NUL in a field"),
        pytest.param(ok(FIRST).replace(b"OK\r\n", b"OK\r\nX: " + b"a" * 102_400 + b"\r\n"), id="a head over 100 KiB"),
        pytest.param(ok(FIRST).replace(b"HTTP/1.1 200", b"HTTP/1.1 20"), id="a status of two digits"),
        pytest.param(ok(FIRST).replace(b"HTTP/1.1 200", b"HTTP/1.1 099"), id="a status below 100"),
        pytest.param(ok(FIRST).replace(b"HTTP/1.1 200", b"HTTP/2 200"), id="HTTP/2"),
        pytest.param(ok(FIRST).replace(b"HTTP/1.1", b"ICY"), id="another protocol"),
        pytest.param(FIRST, id="no head"),
        pytest.param(b"garbage\r\n\r\n" + ok(FIRST), id="garbage before"),
        pytest.param(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n" + ok(FIRST), id="101"),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n" + FIRST, id="204 with a body"),
        pytest.param(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 21\r\n\r\n" + FIRST, id="304 with a body"),
        pytest.param(HEAD + b"Content-Encoding: gzip\r\nContent-Length: 21\r\n\r\n" + FIRST, id="gzip"),
    ],
)
def test_answer_whose_end_is_in_doubt_is_502_and_its_connection_is_not_used_again(
    desk: ProxyProcess, upstream: ScriptedUpstream, answer: bytes
) -> None:
    upstream.answer(answer)
    refused = ask(desk)
    assert (refused.status_code, refused.json()["error"]["code"]) == (502, "upstream_unavailable")
    check_next(desk, upstream, same_connection=False)


@pytest.mark.parametrize("status", [b"400 Bad Request", b"429 Too Many Requests", b"500 Internal Server Error"])
def test_error_with_bytes_behind_it_is_no_part_of_the_next_answer(
    desk: ProxyProcess, upstream: ScriptedUpstream, status: bytes
) -> None:
    upstream.answer((ok(FIRST) + FOREIGN).replace(b"200 OK", status, 1))
    answer = ask(desk)
    assert answer.status_code in (int(status[:3]), 502)
    assert b"foreign" not in answer.content
    check_next(desk, upstream, same_connection=False)


@pytest.mark.parametrize(
    "interim",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 102 Processing\r\nX: y\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 50,
    ],
    ids=["100", "102", "103", "fifty"],
)
def test_interim_answer_is_left_out_and_the_connection_used_again(
    desk: ProxyProcess, upstream: ScriptedUpstream, interim: bytes
) -> None:
    upstream.answer(interim + ok(FIRST))
    answer = ask(desk)
    assert (answer.status_code, answer.content) == (200, FIRST)
    check_next(desk, upstream, same_connection=True)


@pytest.mark.parametrize("late", [FOREIGN, b"x", b"\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"], ids=repr)
def test_bytes_that_come_when_the_answer_is_over_never_become_the_next_one(
    desk: ProxyProcess, upstream: ScriptedUpstream, late: bytes
) -> None:
    answered, arrived = threading.Event(), threading.Event()

    def tell_when_it_is_there(sock: socket.socket) -> None:
        wait_for(lambda: fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)) == bytes(4))  # all of it is acknowledged
        arrived.set()

    upstream.answer(ok(FIRST), answered, late, tell_when_it_is_there)
    assert ask(desk).content == FIRST
    answered.set()
    assert arrived.wait(5)
    check_next(desk, upstream, same_connection=False)


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (HEAD + b"Content-Length: 100\r\n\r\n" + FIRST, 504),
        (CHUNKED + chunk(FIRST), 504),
        (CHUNKED + b"ff\r\n" + FIRST, 504),
        (b"HTTP/1.1 200 OK\r\nContent-", 504),
    ],
    ids=["length", "no last chunk", "half a chunk", "half a head"],
)
def test_answer_that_stops_short_is_504_and_what_comes_later_goes_to_nobody(
    desk: ProxyProcess, upstream: ScriptedUpstream, answer: bytes, status: int
) -> None:
    given_up = threading.Event()
    upstream.answer(answer, given_up, b"x" * 79 + FOREIGN)
    assert ask(desk).status_code == status
    given_up.set()
    check_next(desk, upstream, same_connection=False)


@pytest.mark.parametrize(
    ("pieces", "ends"),
    [
        # Either, where it depends on which bytes come in one read.
        pytest.param([chunk(DONE) + LAST + FOREIGN], {"done", "cut"}, id="an answer behind the end"),
        pytest.param([chunk(DONE), FOREIGN], {"done", "cut"}, id="an answer for the last chunk"),
        pytest.param([chunk(DONE + FRAME) + LAST], {"done"}, id="frames behind [DONE]"),
        pytest.param([b"zz\r\n", FOREIGN], {"cut"}, id="a bad chunk"),
        pytest.param([FOREIGN], {"cut"}, id="an answer for a chunk"),
    ],
)
def test_stream_with_more_than_its_own_bytes_shows_none_of_them(
    desk: ProxyProcess, upstream: ScriptedUpstream, pieces: list[bytes], ends: set[str]
) -> None:
    go_on = threading.Event()
    upstream.answer(STREAM_HEAD + chunk(FRAME), go_on, *pieces)
    with RawCaller(desk.port) as caller:
        caller.post(CHAT, {**BODY, "stream": True}, "Connection: close")
        got = caller.read_until(b"\n\n\r\n")
        go_on.set()
        [answer] = answers_of(got + caller.read_to_end())
    first, last, end = answer.body.split(b"\n\n")
    assert (first + b"\n\n", end) == (FRAME, b"")
    end_of = {DONE.strip(): "done", BROKE_OFF: "cut"}
    assert end_of[last[: len(BROKE_OFF)]] in ends
    if pieces[-1].endswith(FOREIGN):
        check_next(desk, upstream, same_connection=False)


def test_kept_connection_that_the_upstream_has_closed_costs_no_request(
    desk: ProxyProcess, upstream: ScriptedUpstream
) -> None:
    with always_true(desk):
        for _ in range(20):
            upstream.answer(ok(FIRST), close)
            assert ask(desk).status_code == 200
            wait_for(lambda: upstream.connections[-1].fileno() < 0)  # else it may take the next request, and then close
    assert len(upstream.requests) == 20


def test_request_that_was_received_and_not_answered_is_not_sent_again(
    desk: ProxyProcess, upstream: ScriptedUpstream
) -> None:
    upstream.answer(ok(FIRST))
    upstream.answer(close)
    with always_true(desk) as watch:
        assert watch.chat().status_code == 200
        assert watch.chat().status_code == 502
    assert len(upstream.requests) == 2
    check_next(desk, upstream, same_connection=False)
