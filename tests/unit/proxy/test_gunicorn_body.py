"""Bodies as gunicorn's parser makes them; the limit of chunks is in blueprints/test_caller_body, as the app sets it."""

import socket
from collections.abc import Iterator

import pytest
from gunicorn.http import message
from gunicorn.http.body import Body, ChunkedReader, LengthReader
from gunicorn.http.unreader import IterUnreader

from proxy import gunicorn_body
from proxy.gunicorn_body import LimitedChunks, ask_when_read, limit_chunks

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


def test_gunicorn_makes_its_readers_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(message, "ChunkedReader", ChunkedReader)
    gunicorn_body.install()
    assert message.ChunkedReader is LimitedChunks
