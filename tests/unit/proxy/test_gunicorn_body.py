"""Bodies as gunicorn's parser makes them; the limit of chunks is in blueprints/test_caller_body, as the app sets it."""

import socket
from collections.abc import Iterator

import pytest
from gunicorn.http import message
from gunicorn.http.body import Body, ChunkedReader, LengthReader
from gunicorn.http.errors import ParseException
from gunicorn.http.unreader import IterUnreader, SocketUnreader

from proxy import gunicorn_body
from proxy.caller_source import CallerSource
from proxy.gunicorn_body import (
    LimitedChunks,
    TooMuchAnnounced,
    ask_when_read,
    has_come,
    limit_chunks,
    limit_wait,
    read_some,
)

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Ours and the caller's."""
    ours, callers = socket.socketpair()
    callers.settimeout(0)
    with ours, callers:
        yield ours, callers


@pytest.mark.parametrize(
    "reader",
    [LengthReader(IterUnreader([b"ab"]), 2), LimitedChunks(None, IterUnreader([b"2\r\nab\r\n0\r\n\r\n"]))],
    ids=["length", "chunks"],
)
def test_caller_is_asked_once_and_when_the_app_begins_to_read(
    pair: tuple[socket.socket, socket.socket], reader: LengthReader | LimitedChunks
) -> None:
    ours, callers = pair
    body = Body(reader)
    ask_when_read(body, ours)
    limit_chunks(body, 2)
    with pytest.raises(BlockingIOError):
        callers.recv(100)
    assert body.failed
    assert body.read(1) + body.read() == b"ab"
    assert (callers.recv(100), body.failed) == (CONTINUE, False)


def test_caller_that_is_gone_when_it_is_asked_fails_the_body(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, callers = pair
    callers.close()
    body = Body(LengthReader(IterUnreader([b"ab"]), 2))
    ask_when_read(body, ours)
    with pytest.raises(OSError, match="Broken pipe"):
        body.read()
    assert body.failed


@pytest.mark.parametrize("reader", [LengthReader, LimitedChunks])
def test_caller_is_asked_by_a_read_of_what_has_come_too(
    pair: tuple[socket.socket, socket.socket], reader: type[LengthReader | LimitedChunks]
) -> None:
    ours, callers = pair
    is_length = reader is LengthReader
    body = Body(
        LengthReader(IterUnreader([b"ab"]), 2) if is_length else LimitedChunks(None, IterUnreader([b"2\r\nab"]))
    )
    ask_when_read(body, ours)
    assert read_some(body, 1) == b"ab"
    assert (callers.recv(100), body.failed) == (CONTINUE, False)


def test_body_has_come_when_a_read_would_not_wait(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, callers = pair
    body = Body(LengthReader(SocketUnreader(ours), 4))
    assert not has_come(body, ours, 1, 0)
    callers.send(b"abc")
    assert has_come(body, ours, 3, 0)
    body.reader.read(1)
    assert has_come(body, ours, 2, 0)  # the rest is held
    assert not has_come(body, ours, 3, 0)
    callers.send(b"dGET /")
    assert read_some(body, 1) == b"bc"
    assert has_come(body, ours, 9, 0)
    assert read_some(body, 9) == b"d"
    assert has_come(body, ours, 1, 0)  # its end


@pytest.mark.parametrize(
    ("sent", "given"),
    [
        pytest.param([b"1\r\nb\r\n"], [b"b"], id="a chunk"),
        pytest.param([b"1", b"\r", b"\n", b"b"], [b"", b"", b"", b"b"], id="a size in pieces"),
        pytest.param([b"2\r\nb", b"c", b"\r\n1\r\nd"], [b"b", b"c", b"d"], id="a chunk in pieces"),
        pytest.param([b"1;x=y\r\nb\r\n"], [b"b"], id="an extension"),
        pytest.param([b"1\r\nb\r\n1\r\nc\r\n1"], [b"b", b"c"], id="two at a time"),
        pytest.param([b"0\r\n", b"\r\n"], [b"", b""], id="the end"),
    ],
)
@pytest.mark.parametrize("line_end", [b"\r\n", b"", b"\r"], ids=["with the first", "later", "apart"])
def test_chunk_has_come_when_a_read_would_not_wait(
    pair: tuple[socket.socket, socket.socket], sent: list[bytes], given: list[bytes], line_end: bytes
) -> None:
    ours, callers = pair
    ours.settimeout(1)
    body = Body(LimitedChunks(None, SocketUnreader(ours)))
    callers.send(b"1\r\na" + line_end)
    assert read_some(body, 1) == b"a"
    assert not has_come(body, ours, 1, 0)
    missing = b"\r\n".removeprefix(line_end)
    come = []
    for piece in sent:
        callers.send(missing + piece)
        missing = b""
        come.append(read_some(body, 1) if has_come(body, ours, 1, 0) else b"")
    while len(come) < len(given):
        assert has_come(body, ours, 1, 0)
        come.append(read_some(body, 1))
    assert come == given
    assert has_come(body, ours, 1, 0) is (body.reader.parser is None)


@pytest.mark.parametrize("behind", [b"no", b"\r\nno\r\n", b"\r\n" + b"1" * 17])
def test_chunks_that_cannot_be_read_fail_the_body_without_a_wait(
    pair: tuple[socket.socket, socket.socket], behind: bytes
) -> None:
    ours, callers = pair
    ours.settimeout(1)
    body = Body(LimitedChunks(None, SocketUnreader(ours)))
    limit_chunks(body, 10)
    callers.send(b"1\r\na" + behind + b"\r\n")
    assert read_some(body, 1) == b"a"
    with pytest.raises((ParseException, TooMuchAnnounced)):
        has_come(body, ours, 1, 0)
    assert body.failed


def test_wait_for_the_rest_of_a_body_ends_when_it_is_told_to(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, callers = pair
    callers.send(b"ab")
    source = CallerSource(ours)
    body = Body(LengthReader(SocketUnreader(source), 4))
    limit_wait(body, 5)
    assert read_some(body, 1) == b"ab"
    limit_wait(body, 0)
    with pytest.raises(TimeoutError):
        read_some(body, 1)
    assert body.failed
    source.close()


def test_gunicorn_makes_its_readers_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(message, "ChunkedReader", ChunkedReader)
    gunicorn_body.install()
    assert message.ChunkedReader is LimitedChunks
