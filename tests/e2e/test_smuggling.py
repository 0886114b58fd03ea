"""Requests whose end others may see elsewhere: refused, with nothing behind them taken for a request.

Each goes with a hidden request in its body and an honest one behind it, in one write. What is refused gets one answer
and the connection is closed; what is served gets its own, and the honest one its own. Heads that are odd in another
way are in test_odd_heads.
"""

import socket

import pytest

from tests.support.always_true import always_true
from tests.support.proxy_process import ProxyProcess
from tests.support.raw_answers import RawAnswer, answers_of
from tests.support.raw_http import RawCaller
from tests.support.sandbox_client import SandboxClient

BODY = b'{"model":"m","messages":[{"role":"user","content":"Hello"}]}'
START = b"POST /v1/chat/completions HTTP/1.1\r\nHost: proxy\r\n"
HIDDEN = START + b"X-Request-Id: hidden\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
HONEST = b"GET /healthz HTTP/1.1\r\nHost: proxy\r\nX-Request-Id: honest\r\nConnection: close\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
LAST = b"0\r\n\r\n"


def chunk(size: bytes = b"%x" % len(BODY), data: bytes = BODY, end: bytes = b"\r\n") -> bytes:
    return size + b"\r\n" + data + end


def exchange(proxy: ProxyProcess, data: bytes, *, end: bool = False) -> list[RawAnswer]:
    """All answers to these bytes and the honest request; `end`: with no more to come from the caller."""
    with RawCaller(proxy.port) as caller:
        caller.send(data + HONEST)
        if end:
            caller.sock.shutdown(socket.SHUT_WR)
        return answers_of(caller.read_to_end())


def check_refused(proxy: ProxyProcess, sandbox: SandboxClient, data: bytes) -> None:
    [answer] = exchange(proxy, data)
    assert (answer.status, answer.field("Connection")) == (400, "close")
    assert answer.field("Content-Type") == "application/json"
    assert sandbox.log() == []


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param(LENGTH + CHUNKED, id="length and chunked"),
        pytest.param(CHUNKED + LENGTH, id="chunked and length"),
        pytest.param(b"Content-Length: 0\r\n" + CHUNKED, id="length of 0 and chunked"),
        pytest.param(LENGTH + b"Transfer-Encoding: identity\r\n", id="length and identity"),
        pytest.param(LENGTH + b"Transfer-Encoding:\r\n", id="length and an empty coding"),
        pytest.param(LENGTH + b"Transfer-Encoding : chunked\r\n", id="length and chunked with a blank"),
        pytest.param(LENGTH + b"Transfer_Encoding: chunked\r\n", id="length and chunked with an underscore"),
        pytest.param(LENGTH + b"X: y\r\n Transfer-Encoding: chunked\r\n", id="length and chunked in a fold"),
        pytest.param(LENGTH + b"X: y\nTransfer-Encoding: chunked\r\n", id="length and chunked behind LF"),
        pytest.param(LENGTH + b"X: y\rTransfer-Encoding: chunked\r\n", id="length and chunked behind CR"),
        pytest.param(LENGTH + LENGTH, id="two lengths, the same"),
        pytest.param(LENGTH + b"Content-Length: 0\r\n", id="two lengths"),
        pytest.param(b"Content-Length: 0\r\n" + LENGTH, id="two lengths, the first 0"),
    ],
)
def test_two_ways_to_find_the_end_are_refused(proxy: ProxyProcess, sandbox: SandboxClient, fields: bytes) -> None:
    check_refused(proxy, sandbox, START + fields + b"\r\n" + chunk() + LAST + HIDDEN)


@pytest.mark.parametrize(
    "value",
    [
        *(b"5, 5", b"5,0", b"5 5", b"5;0", b"+5", b"-5", b"-0", b"0x5", b"5_0", b"5e1", b"5.0", b'"5"', b""),
        *(b"\x0b5", b"\xb2", b"9" * 5000),
    ],
    ids=lambda value: repr(value)[1:30],
)
def test_length_that_is_no_number_is_refused(proxy: ProxyProcess, sandbox: SandboxClient, value: bytes) -> None:
    check_refused(proxy, sandbox, START + b"Content-Length: " + value + b"\r\n\r\n" + HIDDEN)


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param(CHUNKED + CHUNKED, id="twice"),
        pytest.param(CHUNKED + b"Transfer-Encoding: identity\r\n", id="and identity"),
        pytest.param(b"Transfer-Encoding: identity\r\n" + CHUNKED, id="behind identity"),
        pytest.param(b"Transfer-Encoding:\r\n chunked\r\n", id="folded"),
        pytest.param(b"Transfer-Encoding\t: chunked\r\n", id="a tab before the colon"),
        *[
            pytest.param(b"Transfer-Encoding: %b\r\n" % value, id=repr(value)[2:-1])
            for value in (
                *(b"chunked, chunked", b"chunked, gzip", b"gzip, chunked", b"gzip", b"identity", b"identity, chunked"),
                *(b"xchunked", b"chunkedx", b"chunked;q=1", b'"chunked"', b",chunked", b"chunked,", b"chun ked", b""),
                *(b"\x0bchunked", b"chunked\x00", b"\x85chunked", b"chunk\xe9d", b"c\xe8unked"),
            )
        ],
    ],
)
def test_coding_that_is_not_just_chunked_is_refused(proxy: ProxyProcess, sandbox: SandboxClient, fields: bytes) -> None:
    check_refused(proxy, sandbox, START + fields + b"\r\n" + chunk() + LAST + HIDDEN)


def test_chunks_in_1_0_are_refused(proxy: ProxyProcess, sandbox: SandboxClient) -> None:
    check_refused(proxy, sandbox, START.replace(b"1.1", b"1.0") + CHUNKED + b"\r\n" + chunk() + LAST + HIDDEN)


@pytest.mark.parametrize(
    "body",
    [
        *[
            pytest.param(chunk(size) + LAST, id=f"size {repr(size)[2:-1]}")
            for size in (
                *(b"+3c", b"-3c", b"0x3c", b"3_c", b" 3c", b"3c ", b"\t3c", b"3c\t", b"", b"3g", b"3c\x00", b"\xb3c"),
                *(b"3c\n", b"3c\r", b"3c,3c", b"3.c", b"3c;\r", b"3c;a=\rb", b"3c;a\nb", b"3c;a=\x00", b"3c;=b"),
                *(b"3c;a=b c", b'3c;a="', b"3c;a b"),
            )
        ],
        pytest.param(chunk().replace(b"\r\n", b"\n") + LAST, id="LF"),
        pytest.param(chunk() + b"0\n\n", id="LF at the end"),
        pytest.param(chunk(b"3c;" + b"x" * 40_000) + LAST, id="an extension of 40 KB"),
        pytest.param(chunk(end=b"XX") + LAST, id="no line end behind a chunk"),
        pytest.param(chunk(end=b"\r") + LAST, id="CR behind a chunk"),
        pytest.param(chunk(end=b"\n") + LAST, id="LF behind a chunk"),
        pytest.param(chunk(b"3b") + LAST, id="a chunk longer than its size"),
        pytest.param(chunk(b"3d") + LAST, id="a chunk shorter than its size"),
        *[
            pytest.param(chunk() + b"0\r\n" + line + b"\r\n\r\n", id=f"trailer {repr(line)[2:-1]}")
            for line in (
                *(
                    b"Content-Length: 5",
                    b"Transfer-Encoding: chunked",
                    b"Host: x",
                    b"Authorization: Bearer x",
                    b"TE: x",
                ),
                *(b"Trailer: x", b"X-A : b", b"X_A: b", b"X-A", b"X-A: b\r\n folded", b"X-A: b\nHost: x", b"X-A: \x00"),
            )
        ],
    ],
)
def test_bad_chunks_are_refused(proxy: ProxyProcess, sandbox: SandboxClient, body: bytes) -> None:
    check_refused(proxy, sandbox, START + CHUNKED + b"\r\n" + body + HIDDEN)


@pytest.mark.parametrize("size", [b"ffffffff", b"f" * 16, b"1" + b"0" * 16, b"f" * 200], ids=len)
def test_chunk_of_any_size_takes_all_that_follows_and_is_never_sent_on(
    proxy: ProxyProcess, sandbox: SandboxClient, size: bytes
) -> None:
    answers = exchange(proxy, START + CHUNKED + b"\r\n" + chunk(size) + LAST + HIDDEN, end=True)
    assert [answer.status for answer in answers] in ([], [400], [413], [499])
    assert sandbox.log() == []


@pytest.mark.parametrize("body", [chunk(b"zz") + LAST, chunk(end=b"XX") + LAST, chunk() + b"0\r\nHost: x\r\n\r\n"])
def test_bad_chunks_that_nobody_reads_get_no_second_answer(
    proxy: ProxyProcess, sandbox: SandboxClient, body: bytes
) -> None:
    start = START.replace(b"/v1/chat/completions", b"/nowhere")
    assert [answer.status for answer in exchange(proxy, start + CHUNKED + b"\r\n" + body + HIDDEN)] == [404]
    assert sandbox.log() == []


@pytest.mark.parametrize(
    "request_bytes",
    [
        pytest.param(LENGTH + b"\r\n" + BODY, id="length"),
        pytest.param(b"Content-Length: 000%d\r\n\r\n" % len(BODY) + BODY, id="length with zeros"),
        pytest.param(CHUNKED + b"\r\n" + chunk() + LAST, id="one chunk"),
        pytest.param(CHUNKED + b"\r\n" + b"".join(chunk(b"1", BODY[at : at + 1]) for at in range(60)) + LAST, id="60"),
        pytest.param(CHUNKED + b"\r\n" + chunk(b"0000003C") + b"000\r\n\r\n", id="sizes with zeros"),
        pytest.param(CHUNKED + b"\r\n" + chunk(b'3c;a;b=c ; d="e;\\"f"') + LAST, id="extensions"),
        pytest.param(CHUNKED + b"\r\n" + chunk(b"3c ;a") + LAST, id="a blank before an extension"),
        pytest.param(CHUNKED + b"\r\n" + chunk() + b"0\r\nX-Sum: 1\r\n\r\n", id="a trailer"),
        pytest.param(b"Transfer-Encoding: \t Chunked \r\n\r\n" + chunk() + LAST, id="blanks and capitals"),
    ],
)
def test_body_with_one_end_arrives_whole_and_the_next_request_gets_its_own_answer(
    proxy: ProxyProcess, sandbox: SandboxClient, request_bytes: bytes
) -> None:
    first, second = exchange(proxy, START + request_bytes)
    assert (first.status, b'"choices"' in first.body) == (200, True)
    assert (second.status, second.field("X-Request-Id"), second.body) == (200, "honest", b'{"status":"ok"}\n')
    [entry] = sandbox.log()
    assert entry["body"] == BODY
    assert "X-Sum" not in dict(entry["headers"])
    assert "Transfer-Encoding" not in dict(entry["headers"])


def test_refused_requests_leave_nothing_behind(proxy: ProxyProcess, sandbox: SandboxClient) -> None:
    attacks = [
        LENGTH + CHUNKED + b"\r\n",
        CHUNKED + b"\r\n" + chunk(b"zz"),
        CHUNKED + b"\r\n" + chunk(b"fff"),
        b"X\r\n\r\n",
    ]
    with always_true(proxy, sandbox) as watch:
        for attack in attacks * 10:
            for answer in exchange(proxy, START + attack + HIDDEN, end=True):
                watch.saw(answer.head + answer.body)
