from collections.abc import Sequence
from itertools import pairwise

import pytest
from geventhttpclient._parser import HTTPParseError
from hypothesis import given
from hypothesis import strategies as st

from proxy.headers import Fields
from proxy.upstreams.answer_parser import TRAILERS_MOST_CHARS, AnswerParser

START = b"HTTP/1.1 200 OK\r\n"
EMPTY = b"Content-Length: 0\r\n\r\n"
OK = START + b"Content-Length: 2\r\n\r\nok"
CHUNKED = START + b"Transfer-Encoding: chunked\r\n\r\n"
INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"


def parsed(*reads: bytes, method: str = "POST") -> AnswerParser:
    parser = AnswerParser(method)
    for read in reads:
        parser.feed(read)
    return parser


def cut(data: bytes, at: Sequence[int]) -> list[bytes]:
    places = [0, *sorted(place % (len(data) + 1) for place in at), len(data)]
    return [data[start:end] for start, end in pairwise(places) if start < end]


# For any answer, however it is cut

_TOKEN = st.text("abcXYZ019-_.!#$%&'*+^`|~", min_size=1, max_size=12)
_VISIBLE = [chr(code) for code in (*range(0x21, 0x7F), *range(0x80, 0x100))]
# No blank at the end: whoever sends the fields on takes it away.
_VALUE = st.text(st.sampled_from([*_VISIBLE, " ", "\t"]), max_size=20).map(lambda value: value.strip(" \t"))
_FIELDS = st.lists(st.tuples(_TOKEN.map(lambda name: f"X-{name}"), _VALUE), max_size=6)
_PIECES = st.lists(st.binary(min_size=1, max_size=20), max_size=5)
_EXTENSION = st.sampled_from([b"", b";name", b";name=value", b';name="a value"', b";a=b;c=d"])
_CUTS = st.lists(st.integers(min_value=0, max_value=2000), max_size=12) | st.just(list(range(2000)))


def head_of(fields: Fields) -> bytes:
    lines = [f"{name}:{' ' if number % 2 else ''}{value}\r\n" for number, (name, value) in enumerate(fields)]
    return START + "".join([*lines, "\r\n"]).encode("latin-1")


@given(_FIELDS, _PIECES, _CUTS, st.booleans())
def test_answer_with_a_length_is_read_whole_however_it_is_cut(
    given_fields: Fields, pieces: list[bytes], cuts: list[int], has_interim: bool
) -> None:
    body = b"".join(pieces)
    fields = [*given_fields, ("Content-Length", str(len(body)))]
    parser = parsed(*cut((INTERIM if has_interim else b"") + head_of(fields) + body, cuts))
    assert (parser.status, parser.fields, parser.take_body()) == (200, fields, body)
    assert parser.can_be_followed()


@given(_FIELDS, st.lists(st.tuples(st.binary(min_size=1, max_size=20), _EXTENSION), max_size=5), _CUTS)
def test_answer_in_chunks_is_read_whole_however_it_is_cut(
    given_fields: Fields, chunks: list[tuple[bytes, bytes]], cuts: list[int]
) -> None:
    fields = [("Transfer-Encoding", "chunked"), *given_fields]
    body = b"".join(b"%X%b\r\n%b\r\n" % (len(data), extension, data) for data, extension in chunks)
    parser = parsed(*cut(head_of(fields) + body + b"0\r\n\r\n", cuts))
    assert (parser.status, parser.fields) == (200, fields)
    assert parser.take_body() == b"".join(data for data, _ in chunks)
    assert parser.can_be_followed()


@given(_FIELDS, _PIECES, _CUTS)
def test_answer_that_lasts_until_the_close_is_read_whole_however_it_is_cut(
    fields: Fields, pieces: list[bytes], cuts: list[int]
) -> None:
    body = b"".join(pieces)
    parser = parsed(*cut(head_of(fields) + body, cuts))
    assert not parser.is_complete
    parser.feed(b"")
    assert (parser.status, parser.fields, parser.take_body()) == (200, fields, body)
    assert parser.is_complete
    assert not parser.can_be_followed()


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
def test_head_is_complete_with_its_last_byte_and_not_before(method: str) -> None:
    head = START + b"X-A: 1\r\nX-Empty:\r\nContent-Length: 5\r\n\r\n"
    parser = AnswerParser(method)
    for number in range(len(head)):
        assert not parser.head_is_complete
        parser.feed(head[number : number + 1])
    assert parser.head_is_complete
    assert parser.fields == [("X-A", "1"), ("X-Empty", ""), ("Content-Length", "5")]
    assert parser.is_complete == (method == "HEAD")


# Fields


def test_repeated_fields_stay_apart_and_in_their_order() -> None:
    parser = parsed(START + b"X-A: 1\r\nB: 2\r\nx-a: 3\r\nX-A:\r\n" + EMPTY)
    assert parser.fields == [("X-A", "1"), ("B", "2"), ("x-a", "3"), ("X-A", ""), ("Content-Length", "0")]


def test_fields_are_read_as_latin_1() -> None:
    parser = parsed(START + b"X-A: caf\xe9 \xe6\x97\xa5\r\n" + EMPTY)
    assert parser.fields[0] == ("X-A", "café æ\x97¥")


@pytest.mark.parametrize("value", [b"", b" ", b"\t", b"  \t  "], ids=repr)
def test_empty_value_is_a_field_with_no_text(value: bytes) -> None:
    assert parsed(START + b"X-A:" + value + b"\r\nX-B: b\r\n" + EMPTY).fields[:2] == [("X-A", ""), ("X-B", "b")]


def test_size_of_the_fields_is_that_of_their_lines() -> None:
    lines = b"X-A: 1\r\nX-Long: " + b"x" * 1000 + b"\r\n" + EMPTY[:-2]
    assert parsed(START + lines + b"\r\n").field_bytes() == len(lines)


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"X-A: a\r\n b\r\n", id="folded"),
        pytest.param(b"X-A: a\r\n\tb\r\n", id="folded with a tab"),
        pytest.param(b" X-A: a\r\n", id="blank before the first name"),
        pytest.param(b"X-A : a\r\n", id="blank before the colon"),
        pytest.param(b"X-A a\r\n", id="no colon"),
        pytest.param(b": a\r\n", id="no name"),
        pytest.param(b"X\xe9: a\r\n", id="a name that is no token"),
        pytest.param(b"X-A: a\n", id="LF only"),
        pytest.param(b"X-A: a\rb\r\n", id="CR inside"),
        pytest.param(b"X-A: a\x00b\r\n", id="NUL inside"),
        pytest.param(b"Content-Length: 0\r\n", id="the same length twice"),
        pytest.param(b"Transfer-Encoding: chunked\r\n", id="chunks and a length"),
    ],
)
def test_line_that_others_may_read_otherwise_is_refused(line: bytes) -> None:
    with pytest.raises(HTTPParseError):
        parsed(START + line + EMPTY)


@pytest.mark.parametrize("value", [b"", b"+2", b"2, 2", b"0x2", b"2 2", b"-2"], ids=repr)
def test_length_that_is_no_number_is_refused(value: bytes) -> None:
    with pytest.raises(HTTPParseError):
        parsed(START + b"Content-Length: " + value + b"\r\n\r\nok")


# Interim answers


@pytest.mark.parametrize("status", [100, 102, 103, 199])
def test_interim_answer_leaves_nothing_behind(status: int) -> None:
    interim = b"HTTP/1.1 %d Wait\r\nX-A: early\r\nX-B: early\r\n\r\n" % status
    parser = parsed(interim)
    assert not parser.head_is_complete
    parser.feed(interim + OK)
    assert (parser.status, parser.fields) == (200, [("Content-Length", "2")])
    assert parser.take_body() == b"ok"
    assert parser.can_be_followed()


def test_interim_answer_before_one_to_head_leaves_nothing_behind() -> None:
    parser = parsed(INTERIM + START + b"Content-Length: 5\r\n\r\n", method="HEAD")
    assert (parser.fields, parser.is_complete) == ([("Content-Length", "5")], True)
    assert parser.can_be_followed()


def test_end_after_an_interim_answer_is_a_fault() -> None:
    parser = parsed(INTERIM)
    with pytest.raises(HTTPParseError):
        parser.feed(b"")


# The body


@pytest.mark.parametrize(
    ("reads", "body"),
    [
        pytest.param((), b"", id="no piece"),
        pytest.param((b"2\r\nok\r\n",), b"ok", id="one piece"),
        pytest.param((b"2\r\nok\r\n", b"1\r\n!\r\n"), b"ok!", id="two pieces"),
        pytest.param((b"2\r\nok\r\n1\r\n!\r\n1\r\n?\r\n",), b"ok!?", id="three pieces of one read"),
    ],
)
def test_body_is_taken_once_and_as_bytes(reads: tuple[bytes, ...], body: bytes) -> None:
    parser = parsed(CHUNKED, *reads)
    taken = parser.take_body()
    assert type(taken) is bytes
    assert taken == body
    assert parser.take_body() == b""
    parser.feed(b"3\r\nend\r\n0\r\n\r\n")
    assert parser.take_body() == b"end"


def test_piece_that_was_taken_does_not_change_when_the_reader_uses_its_buffer_again() -> None:
    parser = parsed(CHUNKED)
    buffer = bytearray(b"2\r\nok\r\n")
    parser.feed(bytes(buffer))
    taken = parser.take_body()
    buffer[:] = b"2\r\nno\r\n"
    parser.feed(bytes(buffer))
    assert (taken, parser.take_body()) == (b"ok", b"no")


@pytest.mark.parametrize("status", [204, 304])
def test_status_without_a_body_has_none_whatever_length_it_names(status: int) -> None:
    parser = parsed(b"HTTP/1.1 %d Any\r\nContent-Length: 5\r\n\r\n" % status)
    assert parser.is_complete
    assert parser.take_body() == b""


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("in_one_read", [True, False])
def test_trailers_are_passed_by(count: int, in_one_read: bool) -> None:
    trailers = b"".join(b"X-Ratelimit-%d: 1\r\n" % number for number in range(count))
    reads = [CHUNKED, b"2\r\nok\r\n0\r\n", trailers, b"\r\n"]
    parser = parsed(*([b"".join(reads)] if in_one_read else reads))
    assert parser.is_complete
    assert parser.fields == [("Transfer-Encoding", "chunked")]
    assert parser.take_body() == b"ok"


@pytest.mark.parametrize("line", [b"X-Long: " + b"x" * 1000 + b"\r\n", b"x" * 1000], ids=["many", "one"])
def test_trailers_without_end_are_refused(line: bytes) -> None:
    with pytest.raises(HTTPParseError):
        parsed(CHUNKED, b"0\r\n", *[line] * (TRAILERS_MOST_CHARS // 1000 + 1))


def test_interim_answer_alone_cannot_be_followed() -> None:
    assert not parsed(INTERIM).can_be_followed()


@pytest.mark.parametrize("status", [b"000", b"099", b"600", b"999"])
def test_status_that_http_has_not_is_refused(status: bytes) -> None:
    with pytest.raises(HTTPParseError):
        parsed(OK.replace(b"200", status))


@pytest.mark.parametrize(
    "chunk",
    [
        pytest.param(b"2\nok\r\n", id="LF behind the size"),
        pytest.param(b"2 \r\nok\r\n", id="blank behind the size"),
        pytest.param(b"0x2\r\nok\r\n", id="0x"),
        pytest.param(b"-2\r\nok\r\n", id="negative"),
        pytest.param(b"2\r\nokay\r\n", id="longer than its size"),
        pytest.param(b"1" + b"0" * 16 + b"\r\n", id="a size of 2^64"),
    ],
)
def test_chunk_that_others_may_read_otherwise_is_refused(chunk: bytes) -> None:
    with pytest.raises(HTTPParseError):
        parsed(CHUNKED, chunk)


# The end


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(OK, id="content length"),
        pytest.param(CHUNKED + b"0\r\n\r\n", id="chunks"),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", id="no content"),
    ],
)
@pytest.mark.parametrize("behind", [b"x", OK, b"\0"], ids=["a byte", "an answer", "NUL"])
@pytest.mark.parametrize("in_one_read", [True, False], ids=["in one read", "read by itself"])
def test_bytes_behind_the_end_are_a_fault(answer: bytes, behind: bytes, in_one_read: bool) -> None:
    with pytest.raises(HTTPParseError):
        parsed(*([answer + behind] if in_one_read else [answer, behind]))


def test_body_behind_an_answer_to_head_is_a_fault() -> None:
    with pytest.raises(HTTPParseError):
        parsed(OK, method="HEAD")


def test_connection_with_bytes_behind_the_end_cannot_be_followed() -> None:
    parser = parsed(OK)
    with pytest.raises(HTTPParseError):
        parser.feed(OK)
    assert not parser.can_be_followed()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param(OK, True, id="1.1"),
        pytest.param(START + b"Connection: keep-alive\r\n" + EMPTY, True, id="1.1 keep-alive"),
        pytest.param(START + b"Connection: close\r\n" + EMPTY, False, id="1.1 close"),
        pytest.param(START + b"connection: X-A, Close\r\n" + EMPTY, False, id="1.1 close in a list"),
        pytest.param(START + b"Connection: X-A\r\nConnection: close\r\n" + EMPTY, False, id="1.1 close in another"),
        pytest.param(CHUNKED + b"0\r\n\r\n", True, id="1.1 chunks"),
        pytest.param(CHUNKED, False, id="1.1 chunks, not over"),
        pytest.param(OK[:-1], False, id="1.1 a byte is missing"),
        pytest.param(START, False, id="1.1 half a head"),
        pytest.param(b"", False, id="nothing"),
        pytest.param(b"HTTP/1.0 200 OK\r\n" + EMPTY, False, id="1.0"),
        pytest.param(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n" + EMPTY, True, id="1.0 keep-alive"),
        pytest.param(b"HTTP/1.1 401 No\r\n" + EMPTY, True, id="an error"),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", True, id="no content"),
        pytest.param(START + b"Transfer-Encoding: chunked, gzip\r\n\r\nx", False, id="chunks are not the last coding"),
    ],
)
def test_connection_can_be_followed_after_a_whole_answer_that_does_not_close_it(answer: bytes, expected: bool) -> None:
    parser = AnswerParser("POST")
    parser.feed(answer)
    assert parser.can_be_followed() is expected


@pytest.mark.parametrize("version", [b"HTTP/1.0", b"HTTP/1.1"], ids=["1.0", "1.1"])
def test_connection_whose_close_ended_the_answer_cannot_be_followed(version: bytes) -> None:
    parser = parsed(version + b" 200 OK\r\nConnection: keep-alive\r\n\r\nok", b"")
    assert parser.is_complete
    assert parser.take_body() == b"ok"
    assert not parser.can_be_followed()


@pytest.mark.parametrize("answer", [START, OK[:-1], CHUNKED, CHUNKED + b"2\r\no"], ids=repr)
def test_end_of_the_connection_in_an_answer_with_an_end_of_its_own_is_a_fault(answer: bytes) -> None:
    parser = parsed(answer)
    with pytest.raises(HTTPParseError):
        parser.feed(b"")
    assert not parser.can_be_followed()
