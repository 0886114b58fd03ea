"""How a request's body is read; what is done with it is shown end to end."""

import socket
from collections.abc import Callable, Iterator
from contextvars import copy_context
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.http.body import Body, LengthReader
from gunicorn.http.unreader import IterUnreader, SocketUnreader

from proxy.blueprints import caller_body
from proxy.blueprints.caller_body import read_bytes, read_pieces
from proxy.caller_source import BODY_S, WRITE_S, waits_are_limited
from proxy.errors import BodyTimeout, BodyTooLarge, CallerGone, InvalidChunks, ProxyError
from proxy.gunicorn_body import LimitedChunks
from proxy.observability.request_log import RequestLog
from proxy.request_state import RequestState

MIB = 1024 * 1024
AROUND_GUNICORNS_STEPS = [1, 1022, 1023, 1024, 1025, MIB - 1, MIB, MIB + 1, 2 * MIB, 2 * MIB + 1022]


class FakeSocket:
    """Tells what limits it was given."""

    def __init__(self, timeout_s: float | None) -> None:
        self.timeouts_s = [timeout_s]

    def gettimeout(self) -> float | None:
        return self.timeouts_s[-1]

    def settimeout(self, timeout_s: float | None) -> None:
        self.timeouts_s.append(timeout_s)


def request(stream: Any, **environ: Any) -> RequestState:
    return RequestState({"wsgi.input": stream, **environ}, RequestLog("1", "POST", "/"))


def then_silence(*pieces: bytes) -> Iterator[bytes]:
    yield from pieces
    raise AssertionError("waits for more")


def chunked(*chunks: bytes, end: bytes = b"") -> Body:
    pieces = [b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks]
    pieces[-1] = pieces[-1] + end if end else pieces[-1].removesuffix(b"\r\n")
    return Body(LimitedChunks(SimpleNamespace(), IterUnreader(then_silence(*pieces))))


# How much of it


@pytest.mark.parametrize("most", AROUND_GUNICORNS_STEPS)
def test_body_of_the_most_bytes_is_read_whole_whatever_bytes_are_in_it(most: int) -> None:
    raw = (b"\nx" * most)[:most]
    assert read_bytes(request(chunked(raw, end=b"0\r\n\r\n")), most) == raw
    length = Body(LengthReader(IterUnreader(then_silence(raw)), most))
    assert read_bytes(request(length, CONTENT_LENGTH=str(most)), most) == raw


@pytest.mark.parametrize("most", AROUND_GUNICORNS_STEPS)
def test_body_in_chunks_is_too_large_with_the_first_byte_past_the_most(most: int) -> None:
    with pytest.raises(BodyTooLarge):
        read_bytes(request(chunked(b" " * most, b" ")), most)
    with pytest.raises(BodyTooLarge):
        read_bytes(request(chunked(b"\n" * (most + 1))), most)


@pytest.mark.parametrize(
    "head", [b"b\r\n", b"6\r\nabcdef\r\n5;x=y\r\n", b"f" * 16 + b"\r\n", b"1" + b"0" * 1000 + b"\r\n"]
)
def test_chunk_that_is_too_large_is_refused_before_it_comes(head: bytes) -> None:
    stream = Body(LimitedChunks(SimpleNamespace(), IterUnreader(then_silence(head))))
    with pytest.raises(BodyTooLarge):
        read_bytes(request(stream), 10)


def test_body_of_any_other_server_is_counted_as_it_comes() -> None:
    assert read_bytes(request(BytesIO(b"x" * 10)), 10) == b"x" * 10
    with pytest.raises(BodyTooLarge):
        read_bytes(request(BytesIO(b"x" * 11)), 10)


def test_length_that_is_too_large_is_refused_before_reading() -> None:
    with pytest.raises(BodyTooLarge):
        read_bytes(request(Body(LengthReader(IterUnreader(then_silence()), 11)), CONTENT_LENGTH="11"), 10)


# How long it may take


@pytest.mark.parametrize("before_s", [None, 5.0, WRITE_S])
def test_waits_are_limited_here_whatever_the_sockets_own_limit_is(before_s: float | None) -> None:
    sock = FakeSocket(before_s)
    state = request(BytesIO(b"{}"), **{"gunicorn.socket": sock})
    assert read_bytes(state, 10) == b"{}"
    assert sock.timeouts_s == [before_s, BODY_S, WRITE_S]
    [put_back] = state.at_end
    put_back()
    assert sock.gettimeout() == before_s


def test_worker_that_limits_the_waits_itself_is_left_alone() -> None:
    sock = FakeSocket(WRITE_S)

    def read() -> None:
        waits_are_limited.set(True)
        state = request(BytesIO(b"{}"), **{"gunicorn.socket": sock})
        assert read_bytes(state, 10) == b"{}"
        assert state.at_end == []

    copy_context().run(read)
    assert sock.timeouts_s == [WRITE_S]


# As it comes


def pieces_of(stream: Any, most: int = 10**6, **environ: Any) -> list[bytes]:
    return list(read_pieces(request(stream, **environ), most))


def test_body_comes_in_the_pieces_that_the_caller_sent() -> None:
    sent = [b"x", b"yy", b"zzz"]
    length = Body(LengthReader(IterUnreader(then_silence(*sent)), 6))
    assert pieces_of(length, CONTENT_LENGTH="6") == sent
    assert pieces_of(chunked(*sent, end=b"0\r\n\r\n")) == sent


def test_piece_that_is_there_is_given_before_the_next_one_comes() -> None:
    for stream, declared in (
        (Body(LengthReader(IterUnreader(then_silence(b"first")), 9)), {"CONTENT_LENGTH": "9"}),
        (chunked(b"first"), {}),
    ):
        coming = read_pieces(request(stream, **declared), 10)
        assert next(coming) == b"first"
        coming.close()


def test_bytes_behind_the_body_are_left_for_the_next_request() -> None:
    unreader = IterUnreader([b"bo", b"dyGET /"])
    assert pieces_of(Body(LengthReader(unreader, 4)), CONTENT_LENGTH="4") == [b"bo", b"dy"]
    assert unreader.read() == b"GET /"


@pytest.mark.parametrize("size", [1, 100])
def test_body_in_small_chunks_becomes_few_pieces(size: int) -> None:
    count = 200_000 // size
    pieces = pieces_of(chunked(*[b"x" * size] * count, end=b"0\r\n\r\n"))
    assert b"".join(pieces) == b"x" * (size * count)
    assert len(pieces) < 700
    assert len(pieces[0]) == size


@pytest.mark.parametrize(
    ("stream", "declared", "kind"),
    [
        pytest.param(lambda: chunked(b"x" * 6, b"x" * 5), {}, BodyTooLarge, id="too many chunks"),
        pytest.param(
            lambda: Body(LengthReader(IterUnreader([]), 11)), {"CONTENT_LENGTH": "11"}, BodyTooLarge, id="long"
        ),
        pytest.param(
            lambda: Body(LengthReader(IterUnreader([b"x"]), 9)), {"CONTENT_LENGTH": "9"}, CallerGone, id="cut short"
        ),
        pytest.param(lambda: Body(LimitedChunks(None, IterUnreader([b"2\r\nx"]))), {}, CallerGone, id="cut in a chunk"),
        pytest.param(
            lambda: Body(LimitedChunks(None, IterUnreader([b"1\r\nx\r\nno\r\n"]))), {}, InvalidChunks, id="bad chunks"
        ),
    ],
)
def test_fault_ends_the_pieces_and_says_that_nothing_can_follow(
    stream: Callable[[], Body], declared: dict[str, str], kind: type[ProxyError]
) -> None:
    body = stream()
    with pytest.raises(kind):
        pieces_of(body, 10, **declared)
    assert body.failed or kind in (CallerGone, BodyTooLarge)


@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunks"])
@pytest.mark.parametrize("first", [b"first", b"f" * 10_000], ids=["short", "long enough for pieces of many bytes"])
def test_empty_pieces_are_given_while_the_caller_sends_nothing(first: bytes, is_chunked: bool) -> None:
    ours, callers = socket.socketpair()
    with ours, callers:
        ours.settimeout(5)

        def send(piece: bytes) -> None:
            callers.send(b"%x\r\n%b\r\n" % (len(piece), piece) if is_chunked else piece)

        send(first)
        unreader = SocketUnreader(ours)
        length = len(first) + 6
        stream = Body(LimitedChunks(SimpleNamespace(), unreader) if is_chunked else LengthReader(unreader, length))
        declared = {} if is_chunked else {"CONTENT_LENGTH": str(length)}
        coming = read_pieces(request(stream, **declared, **{"gunicorn.socket": ours}), 20_000)
        come = b""
        while len(come) < len(first):
            come += next(coming)
        assert [come, next(coming), next(coming)] == [first, b"", b""]
        send(b"l")
        if len(first) > 10:
            assert next(coming) == b""  # too little for a piece of its own
        send(b"later")
        callers.send(b"0\r\n\r\n") if is_chunked else None
        assert b"".join(coming) == b"llater"


def test_time_in_which_nobody_asks_for_a_piece_is_not_the_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(caller_body.time, "monotonic", lambda: now[0])

    def drip() -> Iterator[bytes]:
        while True:
            now[0] += BODY_S / 4
            yield b"x"

    coming = read_pieces(request(Body(LengthReader(IterUnreader(drip()), 9)), CONTENT_LENGTH="9"), 10)
    for _ in range(4):
        assert next(coming) == b"x"
        now[0] += 1000
    with pytest.raises(BodyTimeout):
        next(coming)
