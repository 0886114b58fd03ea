import re
from collections.abc import Iterable
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.http import wsgi
from hypothesis import given
from hypothesis import strategies as st

from proxy import gunicorn_response
from proxy.gunicorn_response import JoinedResponse

GunicornResponse: Any = JoinedResponse.__base__  # wsgi.Response may already be ours
KIB = 1024
DATE = re.compile(rb"Date: [^\r\n]+")


class RecordingSocket:
    """Takes what is written, `takes` bytes of each send() at most, and remembers each write."""

    def __init__(self, takes: int = 10**9) -> None:
        self.writes: list[bytes] = []
        self._takes = takes

    def send(self, data: bytes) -> int:
        self.writes.append(bytes(data[: self._takes]))
        return len(self.writes[-1])

    def sendall(self, data: bytes) -> None:
        self.writes.append(bytes(data))


def request_of(method: str = "POST", version: tuple[int, int] = (1, 1), *, closes: bool = False) -> SimpleNamespace:
    return SimpleNamespace(
        method=method, version=version, should_close=lambda: closes, body=SimpleNamespace(failed=False),
        _expected_100_continue=False,
    )  # fmt: skip


def answer(
    sock: RecordingSocket,
    pieces: Iterable[bytes],
    *fields: tuple[str, str],
    status: int = 200,
    request: SimpleNamespace | None = None,
    kind: Any = JoinedResponse,
) -> Any:
    """As gunicorn's workers do it; the response."""
    response = kind(request or request_of(), sock, SimpleNamespace())
    response.start_response(f"{status} {HTTPStatus(status).phrase}", list(fields))
    for piece in pieces:
        response.write(piece)
    response.close()
    return response


def length(size: int) -> tuple[str, str]:
    return ("Content-Length", str(size))


# What is written at once


def test_small_answer_leaves_in_one_write() -> None:
    sock = RecordingSocket()
    answer(sock, [b"ok"], ("X-A", "1"), length(2))
    [written] = sock.writes
    assert written.startswith(b"HTTP/1.1 200 OK\r\n")
    assert written.endswith(b"\r\nX-A: 1\r\nContent-Length: 2\r\n\r\nok")


def test_head_of_a_stream_leaves_with_its_first_piece_and_each_other_by_itself() -> None:
    sock = RecordingSocket()
    answer(sock, [b"first", b"second" * 3])
    head, first = sock.writes[0].split(b"\r\n\r\n", 1)
    assert head.endswith(b"\r\nTransfer-Encoding: chunked")
    assert first == b"5\r\nfirst\r\n"
    assert sock.writes[1:] == [b"12\r\nsecondsecondsecond\r\n", b"0\r\n\r\n"]


def test_stream_without_a_piece_leaves_in_one_write() -> None:
    sock = RecordingSocket()
    answer(sock, [])
    [written] = sock.writes
    assert written.endswith(b"\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")


@pytest.mark.parametrize(("size", "writes"), [(64 * KIB, 1), (64 * KIB + 1, 2)])
def test_long_first_piece_leaves_by_itself(size: int, writes: int) -> None:
    sock = RecordingSocket()
    answer(sock, [b"x" * size], length(size))
    assert len(sock.writes) == writes
    assert b"".join(sock.writes).partition(b"\r\n\r\n")[2] == b"x" * size


@pytest.mark.parametrize("takes", [1, 100, 64 * KIB, 1_000_000])
@pytest.mark.parametrize("has_length", [True, False], ids=["length", "chunked"])
def test_what_the_system_does_not_take_at_once_follows_once(takes: int, has_length: bool) -> None:
    pieces = [b"a" * 10, b"b" * 300 * KIB, b"c"]
    fields = [length(sum(map(len, pieces)))] if has_length else []
    in_parts, whole = RecordingSocket(takes), RecordingSocket()
    for sock in (in_parts, whole):
        answer(sock, pieces, *fields)
    assert DATE.sub(b"", b"".join(in_parts.writes)) == DATE.sub(b"", b"".join(whole.writes))


# The same bytes as gunicorn's own

_STATUSES = st.sampled_from([200, 201, 204, 304, 400, 500])
_REQUESTS = st.builds(
    request_of,
    st.sampled_from(["GET", "POST", "HEAD", "OPTIONS"]),
    st.sampled_from([(1, 0), (1, 1)]),
    closes=st.booleans(),
)
_FIELDS = st.lists(
    st.sampled_from([("X-A", "1"), ("x-b", " \xe9\t"), ("Connection", "close"), ("Vary", "")]), max_size=4
)
_PIECES = st.lists(st.sampled_from([b"", b"x", b"0\r\n\r\n", b"y" * 70_000]), max_size=4)


@given(_STATUSES, _REQUESTS, _FIELDS, _PIECES, st.none() | st.integers(min_value=0, max_value=80_000))
def test_bytes_are_those_of_gunicorns_own_response(
    status: int, request: SimpleNamespace, fields: list[tuple[str, str]], pieces: list[bytes], declared: int | None
) -> None:
    fields = fields if declared is None else [*fields, length(declared)]
    ours, theirs = RecordingSocket(), RecordingSocket()
    responses = [
        answer(ours, pieces, *fields, status=status, request=request),
        answer(theirs, pieces, *fields, status=status, request=request, kind=GunicornResponse),
    ]
    assert DATE.sub(b"", b"".join(ours.writes)) == DATE.sub(b"", b"".join(theirs.writes))
    assert len({response.should_close() for response in responses}) == 1


@pytest.mark.parametrize(
    "request_and_status",
    [
        pytest.param((request_of(), 204), id="204"),
        pytest.param((request_of(), 304), id="304"),
        pytest.param((request_of("HEAD"), 200), id="HEAD"),
    ],
)
def test_answer_without_a_body_has_none_and_leaves_in_one_write(
    request_and_status: tuple[SimpleNamespace, int],
) -> None:
    request, status = request_and_status
    sock = RecordingSocket()
    answer(sock, [b"a body"], status=status, request=request)
    [written] = sock.writes
    assert written.endswith(b"\r\n\r\n")
    assert b"Transfer-Encoding" not in written


def test_caller_of_1_0_gets_no_chunks_and_a_close() -> None:
    sock = RecordingSocket()
    response = answer(sock, [b"a", b"b"], request=request_of(version=(1, 0)))
    head, _, body = b"".join(sock.writes).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 200 OK\r\n")
    assert b"\r\nConnection: close" in head
    assert body == b"ab"
    assert response.should_close()


def test_head_of_an_answer_that_breaks_before_its_first_byte_is_not_called_sent() -> None:
    # gunicorn then still answers 500.
    response = JoinedResponse(request_of(), RecordingSocket(), SimpleNamespace())
    response.start_response("200 OK", [])
    assert not response.headers_sent


def test_field_that_would_split_the_head_is_refused() -> None:
    with pytest.raises(wsgi.InvalidResponseHeader):
        answer(RecordingSocket(), [], ("X-A", "1\r\nX-B: 2"))


# The date


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The wall clock, moved by hand: `clock[0]` is now."""
    now = [1_700_000_000.0]
    monkeypatch.setattr(gunicorn_response, "time", SimpleNamespace(time=lambda: now[0]))
    return now


def date_of_an_answer() -> float:
    sock = RecordingSocket()
    answer(sock, [])
    [date] = DATE.findall(sock.writes[0])
    return parsedate_to_datetime(date.decode().removeprefix("Date: ")).timestamp()


def test_date_is_that_of_now_in_whole_seconds(clock: list[float]) -> None:
    for now in (1_700_000_000.0, 1_700_000_000.9, 1_700_000_001.0, 1_700_086_400.5):
        clock[0] = now
        assert date_of_an_answer() == int(now)


def test_date_follows_a_clock_that_is_put_back(clock: list[float]) -> None:
    date_of_an_answer()
    clock[0] -= 3600
    assert date_of_an_answer() == int(clock[0])


def test_date_is_written_as_http_has_it(clock: list[float]) -> None:
    sock = RecordingSocket()
    answer(sock, [])
    assert DATE.findall(sock.writes[0]) == [b"Date: Tue, 14 Nov 2023 22:13:20 GMT"]


# Its place in gunicorn


def test_gunicorn_makes_its_responses_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wsgi, "Response", GunicornResponse)
    gunicorn_response.install()
    assert wsgi.Response is JoinedResponse
    request = SimpleNamespace(
        **vars(request_of("GET")), uri="/", path="/", query="", headers=[], scheme="http", proxy_protocol_info=None,
    )  # fmt: skip
    config = SimpleNamespace(workers=1, errorlog="-")
    response, _ = wsgi.create(request, RecordingSocket(), ("127.0.0.1", 1), ("127.0.0.1", 2), config)
    assert isinstance(response, JoinedResponse)
