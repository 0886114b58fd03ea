"""How a request's body is read; what is done with it is shown end to end."""

from collections.abc import Iterator
from contextvars import copy_context
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.http.body import Body, LengthReader
from gunicorn.http.unreader import IterUnreader

from proxy.blueprints.caller_body import read_bytes
from proxy.caller_source import BODY_S, WRITE_S, waits_are_limited
from proxy.errors import BodyTooLarge
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
