import socket
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace

import httpx2
import pytest

from proxy.upstreams import answer_body
from tests.support.scripted_upstream import LIMIT_S, ScriptedUpstream, close, reset
from tests.support.upstream_sender import Sender

Senders = Callable[..., Sender]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
OPEN_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
FIRST_CHUNK = b"5\r\nfirst\r\n"
LAST_CHUNK = b"0\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n\r\n"
LIMIT = 100 * 1024


def head_of(size: int) -> bytes:
    """The head of an empty answer, of exactly that many bytes."""
    start = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Long: "
    return start + b"x" * (size - len(start) - 4) + b"\r\n\r\n"


# Interim answers


@pytest.mark.parametrize(
    "interim",
    [
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n", id="100"),
        pytest.param(b"HTTP/1.1 102 Processing\r\n\r\n", id="102"),
        pytest.param(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", id="103"),
        pytest.param(b"HTTP/1.1 199 Any\r\n\r\n" * 3, id="several"),
    ],
)
@pytest.mark.parametrize("in_one_read", [True, False], ids=["in one read", "read by itself"])
def test_interim_answer_is_ignored(
    upstream: ScriptedUpstream, sender: Sender, interim: bytes, in_one_read: bool
) -> None:
    if in_one_read:
        upstream.answer(interim + OK)
    else:
        upstream.answer(interim, lambda _: threading.Event().wait(0.05), OK)
    response = sender.response()
    assert response.status_code == 200
    assert "Link" not in response.headers
    assert response.read() == b"ok"


@pytest.mark.parametrize("end", [close, reset])
def test_interim_answer_and_nothing_after_it_is_an_error(
    upstream: ScriptedUpstream, sender_to: Senders, end: Callable[[socket.socket], None]
) -> None:
    upstream.answer(b"HTTP/1.1 100 Continue\r\n\r\n", end)
    with pytest.raises((httpx2.ReadError, httpx2.RemoteProtocolError)):
        sender_to(upstream.url, first_byte_s=0.5).send()


# Answers that break HTTP

_BROKEN = {
    "switching protocols": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
    "switching protocols without Upgrade": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "garbage": b"hello, world\r\n\r\n",
    "HTTP/2": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00",
    "TLS alert": b"\x15\x03\x01\x00\x02\x02\x46",
    "status of four digits": b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
    "status of two digits": b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
    "no status": b"HTTP/1.1 OK\r\nContent-Length: 0\r\n\r\n",
    "other protocol": b"ICY 200 OK\r\nContent-Length: 0\r\n\r\n",
    "length and chunks": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
    "length is no number": b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok",
    "length of 10^30": b"HTTP/1.1 200 OK\r\nContent-Length: 1" + b"0" * 30 + b"\r\n\r\nok",
    "field without a colon": b"HTTP/1.1 200 OK\r\nServer\r\nContent-Length: 0\r\n\r\n",
    "space before the colon": b"HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
    "NUL in a field": b"HTTP/1.1 200 OK\r\nX-A: a\x00b\r\nContent-Length: 0\r\n\r\n",
    "bytes after the body": OK + b"more",
    "a second answer": OK + OK,
    "bytes after Connection: close": b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nokmore",
    "bytes after no content": b"HTTP/1.1 204 No Content\r\n\r\nmore",
    "bytes after the last chunk": OPEN_HEAD + LAST_CHUNK + b"more",
    "cut in the status line": (b"HTTP/1.1 20", close),
    "cut in the fields": (b"HTTP/1.1 200 OK\r\nContent-", close),
}


@pytest.mark.parametrize("answer", [pytest.param(answer, id=name) for name, answer in _BROKEN.items()])
def test_answer_that_breaks_http_is_refused_and_its_connection_closed(
    upstream: ScriptedUpstream, sender: Sender, answer: bytes | tuple[bytes, Callable[[socket.socket], None]]
) -> None:
    upstream.answer(*(answer if isinstance(answer, tuple) else (answer,)))
    upstream.answer(OK)
    with pytest.raises(httpx2.RemoteProtocolError):
        sender.fetch()
    upstream.wait_until_left(0)
    assert sender.fetch() == b"ok"
    assert [received.connection for received in upstream.requests] == [0, 1]


def test_bytes_that_come_after_the_body_was_read_never_become_an_answer(
    upstream: ScriptedUpstream, sender: Sender
) -> None:
    late, said = threading.Event(), threading.Event()
    upstream.answer(OK, late, OK.replace(b"ok", b"no"), lambda _: said.set())
    upstream.answer(OK)
    body = sender.send()
    assert body.read() == b"ok"
    late.set()
    assert said.wait(LIMIT_S)
    body.close()
    assert sender.fetch() == b"ok"
    assert [received.connection for received in upstream.requests] == [0, 1]


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param(b"Content-Encoding: gzip\r\n", id="gzip"),
        pytest.param(b"content-encoding: GZIP\r\n", id="other case"),
        pytest.param(b"Content-Encoding: identity\r\nContent-Encoding: br\r\n", id="two fields"),
        pytest.param(b"Content-Encoding: identity, deflate\r\n", id="two in one field"),
    ],
)
def test_packed_answer_is_refused_unread(upstream: ScriptedUpstream, sender: Sender, fields: bytes) -> None:
    upstream.answer(b"HTTP/1.1 200 OK\r\n" + fields + b"Transfer-Encoding: chunked\r\n\r\n" + FIRST_CHUNK)
    with pytest.raises(httpx2.RemoteProtocolError):
        sender.send()
    upstream.wait_until_left(0)


@pytest.mark.parametrize("status", [400, 401, 403, 500])
@pytest.mark.parametrize(
    "fields",
    [
        pytest.param(b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", id="content"),
        pytest.param(b"Content-Encoding: zstd\r\nContent-Length: 100\r\n", id="content with a length"),
        pytest.param(b"Transfer-Encoding: gzip, chunked\r\n", id="transfer"),
    ],
)
def test_packed_error_is_its_status_without_its_body(
    upstream: ScriptedUpstream, sender: Sender, status: int, fields: bytes
) -> None:
    upstream.answer(b"HTTP/1.1 %d No\r\nX-A: 1\r\n%b\r\n" % (status, fields) + FIRST_CHUNK)
    response = sender.response()
    upstream.wait_until_left(0)
    assert (response.status_code, response.headers["X-A"], response.read()) == (status, "1", b"")
    assert response.extensions["answer_body"].is_cut


def test_identity_is_no_encoding(upstream: ScriptedUpstream, sender: Sender) -> None:
    upstream.answer(b"HTTP/1.1 200 OK\r\nContent-Encoding: identity\r\nContent-Length: 2\r\n\r\nok")
    assert sender.fetch() == b"ok"


@pytest.mark.parametrize("size", [LIMIT - 1, LIMIT])
def test_head_of_up_to_100_kib_is_read(upstream: ScriptedUpstream, sender: Sender, size: int) -> None:
    upstream.answer(head_of(size))
    assert sender.response().status_code == 200


@pytest.mark.parametrize("size", [LIMIT + 100, 1024 * 1024], ids=["just above", "far above"])
def test_head_of_more_than_100_kib_is_refused(upstream: ScriptedUpstream, sender: Sender, size: int) -> None:
    upstream.answer(head_of(size))
    with pytest.raises(httpx2.RemoteProtocolError):
        sender.response()
    upstream.wait_until_left(0)


def test_head_that_never_ends_is_refused(upstream: ScriptedUpstream, sender: Sender) -> None:
    upstream.answer(b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * LIMIT)
    with pytest.raises(httpx2.RemoteProtocolError):
        sender.send()


def test_long_body_in_the_same_reads_as_the_head_is_none_of_it(upstream: ScriptedUpstream, sender: Sender) -> None:
    body = b"x" * (4 * LIMIT)
    upstream.answer(
        head_of(LIMIT).replace(b"Content-Length: 0", b"Content-Length: %d" % len(body))[:-4] + b"\r\n\r\n" + body
    )
    assert sender.fetch() == body


# Bodies


@pytest.mark.parametrize(
    ("steps", "body"),
    [
        pytest.param((OPEN_HEAD, b"1\r\na\r\n", b"A\r\n0123456789\r\n", LAST_CHUNK), b"a0123456789", id="chunks"),
        pytest.param((OPEN_HEAD, b"2;name=value\r\nok\r\n", LAST_CHUNK), b"ok", id="chunk extension"),
        pytest.param((OPEN_HEAD, b"2\r\nok\r\n", b"0\r\nX-After: 1\r\n\r\n"), b"ok", id="trailer"),
        pytest.param((OPEN_HEAD, b"2\r", b"\nok", b"\r\n0", b"\r\n\r\n"), b"ok", id="chunk in pieces"),
        pytest.param((UNTIL_CLOSE, b"a", b"b", close), b"ab", id="until the connection closes"),
        pytest.param((UNTIL_CLOSE, close), b"", id="nothing until the connection closes"),
        pytest.param((OK[:-2], b"o", b"k"), b"ok", id="content length"),
    ],
)
def test_body_is_read_to_its_end(
    upstream: ScriptedUpstream,
    sender: Sender,
    steps: tuple[bytes | Callable[[socket.socket], None], ...],
    body: bytes,
) -> None:
    upstream.answer(*steps)
    assert sender.fetch() == body


def test_end_of_a_body_stays_its_end(upstream: ScriptedUpstream, sender: Sender) -> None:
    upstream.answer(OK)
    body = sender.send()
    assert [body.read(), body.read(), body.read()] == [b"ok", b"", b""]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", id="204"),
        pytest.param(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", id="304"),
    ],
)
def test_answer_whose_status_has_no_body_ends_with_its_head(
    upstream: ScriptedUpstream, sender: Sender, answer: bytes
) -> None:
    upstream.answer(answer)
    assert sender.fetch() == b""


def test_answer_to_head_has_no_body(upstream: ScriptedUpstream, sender: Sender) -> None:
    upstream.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
    assert sender.fetch("HEAD") == b""


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nfirst", id="short content length"),
        pytest.param(OPEN_HEAD + FIRST_CHUNK, id="no last chunk"),
        pytest.param(OPEN_HEAD + FIRST_CHUNK + b"0\r\n", id="half a last chunk"),
        pytest.param(OPEN_HEAD + b"6\r\nfirst", id="half a chunk"),
    ],
)
def test_body_that_is_cut_short_is_an_error_after_what_came(
    upstream: ScriptedUpstream, sender: Sender, answer: bytes
) -> None:
    upstream.answer(answer, close)
    body = sender.send()
    assert body.read() == b"first"
    with pytest.raises(httpx2.RemoteProtocolError):
        body.read()


def test_body_with_a_chunk_that_breaks_http_is_an_error(upstream: ScriptedUpstream, sender: Sender) -> None:
    go_on = threading.Event()
    upstream.answer(OPEN_HEAD + FIRST_CHUNK, go_on, b"xyz\r\n")
    body = sender.send()
    assert body.read() == b"first"
    go_on.set()
    with pytest.raises(httpx2.RemoteProtocolError):
        body.read()
    upstream.wait_until_left(0)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(OPEN_HEAD + FIRST_CHUNK, id="in chunks"),
        pytest.param(UNTIL_CLOSE + b"first", id="until the connection closes"),
    ],
)
def test_close_breaks_off_an_answer_that_is_not_over_and_nobody_takes_it_for_whole(
    upstream: ScriptedUpstream, sender: Sender, answer: bytes
) -> None:
    go_on = threading.Event()
    upstream.answer(answer, go_on)
    body = sender.send()
    assert body.read() == b"first"
    sender.transport.close()
    with pytest.raises(httpx2.ReadError):
        body.read()
    go_on.set()


def test_reset_in_the_body_is_an_error(upstream: ScriptedUpstream, sender: Sender) -> None:
    go_on = threading.Event()
    upstream.answer(UNTIL_CLOSE + b"first", go_on, reset)
    body = sender.send()
    assert body.read() == b"first"
    go_on.set()
    with pytest.raises(httpx2.ReadError):
        body.read()


@pytest.mark.parametrize("status", [400, 404, 500, 599])
@pytest.mark.parametrize(
    ("size", "read"), [(65535, 65535), (65536, 65536), (65537, 65536), (1_000_000, 65536)], ids=str
)
def test_body_of_an_error_is_read_up_to_64_kib(
    upstream: ScriptedUpstream, sender: Sender, status: int, size: int, read: int
) -> None:
    upstream.answer(b"HTTP/1.1 %d No\r\nContent-Length: %d\r\n\r\n" % (status, size) + b"x" * size)
    assert len(sender.fetch()) == read


def test_connection_of_an_error_whose_rest_was_left_is_closed(upstream: ScriptedUpstream, sender: Sender) -> None:
    upstream.answer(b"HTTP/1.1 500 No\r\nContent-Length: 100000\r\n\r\n" + b"x" * 70000)
    sender.fetch()
    upstream.wait_until_left(0)


def test_body_of_a_good_answer_has_no_limit(upstream: ScriptedUpstream, sender: Sender) -> None:
    upstream.answer(b"HTTP/1.1 399 Odd\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1_000_000)
    assert len(sender.fetch()) == 1_000_000


# Time-outs


def test_upstream_that_does_not_answer_in_time_is_a_timeout(upstream: ScriptedUpstream, sender_to: Senders) -> None:
    with pytest.raises(httpx2.ReadTimeout):
        sender_to(upstream.url, first_byte_s=0.05).send()
    upstream.wait_until_left(0)


def test_head_that_does_not_end_in_time_is_a_timeout(upstream: ScriptedUpstream, sender_to: Senders) -> None:
    upstream.answer(b"HTTP/1.1 200 OK\r\nX-A: ")
    with pytest.raises(httpx2.ReadTimeout):
        sender_to(upstream.url, first_byte_s=0.1).send()


def test_total_limit_ends_the_wait_for_the_head_too(upstream: ScriptedUpstream, sender_to: Senders) -> None:
    with pytest.raises(httpx2.ReadTimeout):
        sender_to(upstream.url, total_s=0.05).send()


def test_body_that_stalls_is_a_timeout(upstream: ScriptedUpstream, sender_to: Senders) -> None:
    upstream.answer(OPEN_HEAD + FIRST_CHUNK)
    body = sender_to(upstream.url, idle_s=0.1).send()
    assert body.read() == b"first"
    with pytest.raises(httpx2.ReadTimeout):
        body.read()
    upstream.wait_until_left(0)


def test_body_that_is_not_over_in_time_is_a_timeout_though_it_never_stalls(
    upstream: ScriptedUpstream, sender_to: Senders
) -> None:
    def drip(sock: socket.socket) -> None:
        while True:
            sock.sendall(FIRST_CHUNK)
            time.sleep(0)  # under gevent nobody else would have a turn

    upstream.answer(OPEN_HEAD, drip)
    body = sender_to(upstream.url, total_s=0.2).send()
    with pytest.raises(httpx2.ReadTimeout):
        b"".join(body)
    upstream.wait_until_left(0)


def test_upstream_that_reads_nothing_is_a_timeout(sender_to: Senders) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        sender = sender_to(f"http://127.0.0.1:{deaf.getsockname()[1]}", idle_s=0.1)
        with pytest.raises(httpx2.WriteTimeout):
            sender.send(content=bytes(32 * 1024 * 1024))


def test_waits_shorter_than_the_limit_add_up_to_it(upstream: ScriptedUpstream, sender_to: Senders) -> None:
    upstream.answer(OPEN_HEAD)
    body = sender_to(upstream.url, idle_s=0.1).send()
    waits = iter(lambda: body.read(0.02), b"")
    with pytest.raises(httpx2.ReadTimeout):
        list(waits)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The transport's clock, moved by hand: `clock[0]` is now."""
    now = [1000.0]
    monkeypatch.setattr(answer_body, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_idle_time_starts_after_the_head(upstream: ScriptedUpstream, sender_to: Senders, clock: list[float]) -> None:
    def think(_: socket.socket) -> None:
        clock[0] += 200

    go_on = threading.Event()
    upstream.answer(think, OPEN_HEAD, go_on, FIRST_CHUNK)
    body = sender_to(upstream.url, first_byte_s=300, idle_s=120, total_s=1800).send()
    assert body.read(0.01) is None
    go_on.set()
    assert body.read() == b"first"


def test_time_in_which_nobody_reads_is_no_stall_of_the_upstream(
    upstream: ScriptedUpstream, sender_to: Senders, clock: list[float]
) -> None:
    go_on = threading.Event()
    upstream.answer(OPEN_HEAD + FIRST_CHUNK, go_on, FIRST_CHUNK)
    body = sender_to(upstream.url, idle_s=120, total_s=1800).send()
    assert body.read() == b"first"
    clock[0] += 121
    go_on.set()
    assert body.read() == b"first"


def test_idle_time_starts_anew_with_every_piece(
    upstream: ScriptedUpstream, sender_to: Senders, clock: list[float]
) -> None:
    gates = [threading.Event(), threading.Event()]
    upstream.answer(OPEN_HEAD, gates[0], FIRST_CHUNK, gates[1], FIRST_CHUNK)
    body = sender_to(upstream.url, idle_s=120, total_s=1800).send()
    for gate in gates:
        assert body.read(0.01) is None
        clock[0] += 100
        gate.set()
        assert body.read() == b"first"


def test_total_limit_counts_while_nobody_reads(
    upstream: ScriptedUpstream, sender_to: Senders, clock: list[float]
) -> None:
    upstream.answer(OPEN_HEAD + FIRST_CHUNK, FIRST_CHUNK)
    body = sender_to(upstream.url, idle_s=120, total_s=1800).send()
    assert body.read() in (b"first", b"firstfirst")
    clock[0] += 1800
    with pytest.raises(httpx2.ReadTimeout):
        body.read()


def test_connection_that_is_not_made_in_time_is_a_timeout(sender_to: Senders) -> None:
    with socket.socket() as full, socket.socket() as waiting:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting.connect(full.getsockname())  # the queue holds no more than this one
        with pytest.raises(httpx2.ConnectTimeout):
            sender_to(f"http://127.0.0.1:{full.getsockname()[1]}", connect_s=0.1).send()


# Waiting for a while only


def test_read_with_a_limit_gives_none_and_then_goes_on(upstream: ScriptedUpstream, sender: Sender) -> None:
    go_on = threading.Event()
    upstream.answer(OPEN_HEAD, go_on, FIRST_CHUNK + LAST_CHUNK)
    upstream.answer(OK)
    body = sender.send()
    assert body.read(0.01) is None
    assert body.read(0.01) is None
    go_on.set()
    assert body.read(LIMIT_S) == b"first"
    assert body.read(LIMIT_S) == b""
    assert sender.fetch() == b"ok"
    assert len(upstream.connections) == 1
