"""Bodies in pieces through the transport: when each of them leaves, and what ends them before they are whole."""

import threading
from collections.abc import Callable, Iterator

import httpx2
import pytest

from proxy.errors import InvalidRequest, UpstreamAnswer
from proxy.upstreams.answer_body import AnswerBody, Timeouts
from proxy.upstreams.client import UpstreamClient
from proxy.upstreams.content import StreamedContent
from proxy.upstreams.exchange import Exchange
from proxy.upstreams.request_builder import RequestBuilder, UpstreamSettings
from proxy.upstreams.transport import SocketTransport
from tests.support.loopback_server import LIMIT_S
from tests.support.upload_upstream import UploadUpstream
from tests.support.upstream_sender import Sender

HEAD = b"POST /v1/audio HTTP/1.1\r\nHost: h\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BUSY = b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno"


@pytest.fixture
def upstream() -> Iterator[UploadUpstream]:
    with UploadUpstream() as upstream:
        yield upstream


class Pieces:
    """Gives them one after the other, and does what stands among them; `begun` and `given` count."""

    def __init__(self, *steps: bytes | Callable[[], object]) -> None:
        self._steps = steps
        self.begun = self.given = 0

    def __call__(self) -> Iterator[bytes]:
        self.begun += 1
        for step in self._steps:
            if isinstance(step, bytes):
                self.given += 1
                yield step
            else:
                step()


def fail() -> None:
    raise InvalidRequest("a fault")


def send(sender: Sender, pieces: Pieces, length: int | None = None, exchange: Exchange | None = None) -> AnswerBody:
    return sender.transport.send("POST", HEAD, StreamedContent(pieces, length), exchange or Exchange())


def read(body: AnswerBody) -> bytes:
    data = b"".join(body)
    body.close()
    return data


def test_pieces_of_a_known_length_leave_as_they_are(upstream: UploadUpstream, sender: Sender) -> None:
    upstream.answer(b"third", OK)
    assert read(send(sender, Pieces(b"first", b"", b"second", b"third"), 16)) == b"ok"
    assert upstream.received == [HEAD + b"firstsecondthird"]


def test_pieces_without_a_length_leave_in_chunks_and_an_empty_one_is_none(
    upstream: UploadUpstream, sender: Sender
) -> None:
    upstream.answer(b"0\r\n\r\n", OK)
    assert read(send(sender, Pieces(b"first", b"", b"x" * 30))) == b"ok"
    assert upstream.received == [HEAD + b"5\r\nfirst\r\n1e\r\n" + b"x" * 30 + b"\r\n0\r\n\r\n"]


def test_piece_is_there_before_the_next_one_is_asked_for(upstream: UploadUpstream, sender: Sender) -> None:
    upstream.answer(b"second", OK)
    assert read(send(sender, Pieces(b"first", lambda: upstream.wait_for(b"first"), b"second"), 11)) == b"ok"


@pytest.mark.parametrize("length", [None, 100])
def test_error_of_the_pieces_comes_out_itself_and_the_request_is_never_whole(
    upstream: UploadUpstream, sender: Sender, length: int | None
) -> None:
    with pytest.raises(InvalidRequest, match="a fault"):
        send(sender, Pieces(b"first", fail), length)
    come = upstream.wait_until_left()
    assert come.endswith(b"first" if length else b"5\r\nfirst\r\n")


def test_exchange_that_is_broken_off_ends_the_request(upstream: UploadUpstream, sender: Sender) -> None:
    exchange = Exchange()
    pieces = Pieces(b"first", lambda: upstream.wait_for(b"first"), exchange.break_off, *[b"more"] * 100)
    with pytest.raises(httpx2.ReadError):
        send(sender, pieces, 10**6, exchange)
    assert upstream.wait_until_left().endswith(b"first")


@pytest.mark.parametrize("piece", [b"second", b""], ids=["while more comes", "while nothing comes"])
def test_error_is_heard_before_all_is_sent_and_its_connection_is_not_used_again(
    upstream: UploadUpstream, sender: Sender, piece: bytes
) -> None:
    answered = threading.Event()
    upstream.answer(b"first", BUSY, answered.set)
    upstream.answer(b"", OK)
    pieces = Pieces(b"first", lambda: answered.wait(LIMIT_S), *[piece] * 1000)
    body = send(sender, pieces, 10**6)
    assert (body.status, read(body)) == (413, b"no")
    assert pieces.given < 1000
    assert read(send(sender, Pieces(b"x"), 1)) == b"ok"
    assert len(upstream.received) == 2


def test_good_answer_before_all_is_sent_does_not_end_the_request(upstream: UploadUpstream, sender: Sender) -> None:
    answered = threading.Event()
    upstream.answer(b"first", b"HTTP/1.1 100 Continue\r\n\r\n" + OK, answered.set)
    body = send(sender, Pieces(b"first", lambda: answered.wait(LIMIT_S), b"second", b"third"), 16)
    assert read(body) == b"ok"
    assert upstream.wait_for(b"third").endswith(b"firstsecondthird")


def test_nonsense_before_all_is_sent_ends_the_request(upstream: UploadUpstream, sender: Sender) -> None:
    answered = threading.Event()
    upstream.answer(b"first", b"nonsense\r\n\r\n", answered.set)
    with pytest.raises(httpx2.RemoteProtocolError):
        send(sender, Pieces(b"first", lambda: answered.wait(LIMIT_S), *[b"more"] * 1000), 10**6)


@pytest.mark.parametrize("early", [60, 120])
def test_head_is_too_long_however_much_of_it_came_before_all_was_sent(
    upstream: UploadUpstream, sender: Sender, early: int
) -> None:
    lines = [b"x: %b\r\n" % (b"y" * 1000)] * 120
    answered, go_on = threading.Event(), threading.Event()
    rest = b"".join(lines[early:]) + b"Content-Length: 0\r\n\r\n"
    upstream.answer(
        b"first",
        b"HTTP/1.1 200 OK\r\n" + b"".join(lines[:early]),
        answered.set,
        lambda: go_on.wait(LIMIT_S),
        rest,
    )
    pieces = Pieces(b"first", lambda: answered.wait(LIMIT_S), *[b""] * 1000, go_on.set)
    with pytest.raises(httpx2.RemoteProtocolError, match="too long"):
        send(sender, pieces, 5)
    go_on.set()


def test_upstream_that_reads_nothing_is_given_up(upstream: UploadUpstream, sender_to: Callable[..., Sender]) -> None:
    end = threading.Event()
    upstream.answer(b"first", lambda: end.wait(LIMIT_S))
    try:
        with pytest.raises(httpx2.WriteTimeout):
            send(sender_to(upstream.url, idle_s=0.2), Pieces(b"first", *[b"x" * 10**6] * 100))
    finally:
        end.set()


def test_upload_that_takes_longer_than_a_whole_request_may_is_given_up(
    upstream: UploadUpstream, sender_to: Callable[..., Sender]
) -> None:
    with pytest.raises(httpx2.WriteTimeout):
        send(sender_to(upstream.url, total_s=0.05), Pieces(*[b"x"] * 10, lambda: threading.Event().wait(0.1), b"x"), 99)


def test_pieces_begin_anew_where_a_kept_connection_turns_out_to_be_closed(
    upstream: UploadUpstream, sender: Sender
) -> None:
    acts = [upstream.close_connections]

    class ClosedMeanwhile(Exchange):
        def attach(self, break_off: Callable[[], None]) -> None:
            super().attach(break_off)
            while acts:
                acts.pop()()

    upstream.answer(b"one", OK)
    upstream.answer(b"two", OK)
    assert read(send(sender, Pieces(b"one"), 3)) == b"ok"
    pieces = Pieces(b"begin", b"two")
    assert read(send(sender, pieces, 8, ClosedMeanwhile())) == b"ok"
    assert pieces.begun == 2
    assert upstream.received[1] == HEAD + b"begintwo"


@pytest.mark.parametrize(
    ("length", "field"), [(None, b"Transfer-Encoding: chunked"), (0, b"Content-Length: 0"), (7, b"Content-Length: 7")]
)
def test_head_tells_how_the_body_ends(length: int | None, field: bytes) -> None:
    builder = RequestBuilder(UpstreamSettings("http://h/v1"))
    head = builder.head("POST", "/x", StreamedContent(Pieces(), length), [], None)
    lines = [line for line in head.split(b"\r\n") if line.startswith((b"Transfer", b"Content"))]
    assert lines == [field]


def test_errors_of_the_pieces_and_of_the_upstream_pass_the_sdk_as_they_are(upstream: UploadUpstream) -> None:
    settings = UpstreamSettings(upstream.url)
    transport = SocketTransport(httpx2.URL(upstream.url), tls=None, timeouts=Timeouts())
    answered = threading.Event()
    upstream.answer(b"none")
    upstream.answer(b"first", BUSY, answered.set)
    with UpstreamClient(settings, None, transport) as client:
        for pieces, kind in (
            (Pieces(b"first", lambda: upstream.wait_for(b"first"), fail), InvalidRequest),
            (Pieces(b"first", lambda: answered.wait(LIMIT_S), *[b""] * 100), UpstreamAnswer),
        ):
            with pytest.raises(kind):
                client.send("POST", "/x", content=StreamedContent(pieces, 9), fields=[], exchange=Exchange())
