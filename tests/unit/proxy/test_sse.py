import json
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.sse import DONE, FRAME_MOST_BYTES, KEEPALIVE, TAIL_BYTES, FrameReader, FrameTooLong, error_frame

ROLE = b'data: {"choices":[{"delta":{"role":"assistant"},"finish_reason":null}]}\n\n'
STOP = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"total_tokens":3}}\n\n'
EVENT = b"data: {}\n\n"
READ_BYTES = 65536  # what one read of the transport gives at most


def frames_of(reads: Sequence[bytes]) -> bytes:
    """All that comes out, a clean end included."""
    reader = FrameReader()
    return b"".join([reader.feed(read) for read in reads] + [reader.end()])


def cut(data: bytes, at: Sequence[int]) -> list[bytes]:
    places = [0, *sorted(place % (len(data) + 1) for place in at), len(data)]
    return [data[start:end] for start, end in pairwise(places) if start < end]


def in_reads_of(size: int, data: bytes) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
_PAYLOADS = st.lists(
    st.dictionaries(st.text(), _JSON, max_size=3).map(lambda value: json.dumps(value, ensure_ascii=False).encode()),
    max_size=6,
)
_CUTS = st.lists(st.integers(min_value=0, max_value=10_000), max_size=12)
_LINE_ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


# For any stream


@given(_PAYLOADS, _CUTS)
def test_clean_stream_crosses_byte_for_byte_however_it_is_cut(payloads: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(b"data: " + payload + b"\n\n" for payload in payloads) + DONE
    assert frames_of(cut(stream, cuts)) == stream


@given(_PAYLOADS, _CUTS, st.data(), st.booleans(), st.booleans())
def test_frames_are_the_same_whatever_the_line_ends_and_the_cuts(
    payloads: list[bytes], cuts: list[int], data: st.DataObject, has_blank: bool, has_bom: bool
) -> None:
    def line_end() -> bytes:
        return data.draw(_LINE_ENDS)

    # CR directly before LF is one line end, so after a line that ends in CR the blank line has to start otherwise.
    stream = b"\xef\xbb\xbf" if has_bom else b""
    for payload in payloads:
        end = line_end()
        blank = end if end == b"\r" else line_end()
        stream += (b"data: " if has_blank else b"data:") + payload + end + blank
    expected = b"".join(b"data: " + payload + b"\n\n" for payload in payloads)
    assert frames_of(cut(stream, cuts)) == expected


@given(_PAYLOADS, _LINE_ENDS, _CUTS)
def test_only_whole_frames_come_out_of_each_read(payloads: list[bytes], line_end: bytes, cuts: list[int]) -> None:
    reader = FrameReader()
    for read in cut(b"".join(b"data: " + payload + 2 * line_end for payload in payloads), cuts):
        block = reader.feed(read)
        assert block == b"" or block.endswith(b"\n\n")
        frames = block.split(b"\n\n")[:-1]
        assert all(frame.startswith(b"data: ") and frame[6:] in payloads for frame in frames)


@given(st.binary(max_size=300), _CUTS)
def test_any_bytes_give_lines_of_data_or_comments_only(stream: bytes, cuts: list[int]) -> None:
    for frame in frames_of(cut(stream, cuts)).split(b"\n\n")[:-1]:
        assert frame.startswith((b"data: ", b":"))
        assert b"\r" not in frame
        assert b"\n" not in frame


@given(
    st.lists(st.sampled_from([b"data: {}", b"data", b":c", b"event: x", b"\r", b"\n", b"\r\n", b"\n\n", b"x"])), _CUTS
)
def test_what_comes_out_does_not_depend_on_the_cuts(parts: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(parts)
    assert frames_of(cut(stream, cuts)) == frames_of([stream])


# Where the API names its events.


@pytest.mark.parametrize(
    ("stream", "frames"),
    [
        pytest.param(b"event: x\ndata: 1\n\n", b"event: x\ndata: 1\n\n", id="clean"),
        pytest.param(b"data: 1\n\n", b"data: 1\n\n", id="without a name"),
        pytest.param(b"event:x\r\nid: 7\r\ndata:1\r\n\r\n", b"event: x\ndata: 1\n\n", id="CRLF, id, no blanks"),
        pytest.param(b"data: 1\nevent: x\n\n", b"event: x\ndata: 1\n\n", id="name behind the data"),
        pytest.param(b"event: x\nevent: y\ndata: 1\n\n", b"event: y\ndata: 1\n\n", id="two names"),
        pytest.param(b"event: x\n\ndata: 1\n\n", b"data: 1\n\n", id="name of an event without data"),
        pytest.param(b"event:\ndata: 1\n\n", b"data: 1\n\n", id="empty name"),
        pytest.param(b"event: x\n: c\ndata: 1\n\n", b": c\n\nevent: x\ndata: 1\n\n", id="comment inside"),
        pytest.param(b"data: [DONE]\n\n", b"data: [DONE]\n\n", id="the upstream's own [DONE]"),
        pytest.param(b'event: x\ndata: {"a"', b"", id="half an event at the end"),
        pytest.param(b'event: x\ndata: {"a": 1}\n', b'event: x\ndata: {"a": 1}\n\n', id="no blank line at the end"),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_names_of_events_stay_where_they_are_the_apis_own(stream: bytes, frames: bytes, size: int) -> None:
    reader = FrameReader(named=True)
    pieces = [reader.feed(stream[at : at + size]) for at in range(0, len(stream), size)]
    assert b"".join([*pieces, reader.end()]) == frames


@given(st.lists(st.sampled_from([b"event: x\n", b"event:\n", b"data: 1\n", b": c\n", b"id: 5\n", b"\n", b"\r"])), _CUTS)
def test_named_frames_do_not_depend_on_the_cuts_and_pass_again_as_they_are(parts: list[bytes], cuts: list[int]) -> None:
    def read(pieces: list[bytes]) -> bytes:
        reader = FrameReader(named=True)
        return b"".join([*map(reader.feed, pieces), reader.end()])

    frames = read(cut(b"".join(parts), cuts))
    assert frames == read([b"".join(parts)]) == read([frames])


@pytest.mark.parametrize(
    ("named", "frame", "is_error"),
    [
        pytest.param(True, b'event: error\ndata: {"type":"error","message":"m"}\n\n', True, id="of a named stream"),
        pytest.param(True, b'data: {"error":{}}\n\n', True, id="as in a chat"),
        pytest.param(True, b'event: error\ndata: {"type":"error.not"}\n\n', False, id="another type"),
        pytest.param(False, b'data: {"type":"error","message":"m"}\n\n', False, id="which no chat client raises from"),
    ],
)
def test_error_events_of_named_streams(named: bool, frame: bytes, is_error: bool) -> None:
    reader = FrameReader(named=named)
    assert reader.feed(frame) == frame
    assert reader.ended_in_error == is_error


# Most streams go by the fast way. What it may take for clean, the slow one must leave as it is.

_TEXT = st.sampled_from(
    [b"{}", b'{"a": [1, "x"]}', b"[1]", b"1", b"{ }", b'"data: {"', b"[DONE", b"\xff", "ä\u2028".encode()]
)
_ODD_TEXT = _TEXT | st.sampled_from([b"", b" ", b"\t", b"[DONE]", b"[DONE] "])
_LINE = st.one_of(
    st.builds(
        lambda start, text: start + text, st.sampled_from([b"data: ", b"data:", b"data:  ", b"data:\t"]), _ODD_TEXT
    ),
    st.sampled_from([b"data", b"data:", b":", b": c", b":c: d", b":data: {}", b"event: x", b"id", b"retry: 5", b"x"]),
)
_CLEAN_FRAMES = st.one_of(
    _TEXT.map(lambda text: b"data: " + text + b"\n\n"), st.sampled_from([b": c\n\n", b":\n\n", DONE])
)
_PARTS = (
    _CLEAN_FRAMES
    | _ODD_TEXT.map(lambda text: b"data: " + text + b"\n\n")
    | st.builds(lambda line, end: line + end, _LINE, _LINE_ENDS)
    | _LINE_ENDS
    | st.just(b"\xef\xbb\xbf")
)


@given(_CLEAN_FRAMES, st.lists(_PARTS, max_size=10), _CUTS)
def test_fast_way_gives_what_the_slow_one_does(first: bytes, parts: list[bytes], cuts: list[int]) -> None:
    stream = b"".join([first, *parts])
    slowly = frames_of([b"\r", stream])  # from a CR on each line is read by itself
    assert frames_of(cut(stream, cuts)) == slowly
    assert frames_of([first, *parts]) == slowly  # where reads begin and end with lines, more is taken for clean


@given(
    st.lists(_CLEAN_FRAMES, min_size=1, max_size=8), _CUTS, st.sampled_from([b"\r\n", b"event: x\n\n", b"data: 1\n\n"])
)
def test_clean_frames_after_an_odd_one_cross_as_they_came(frames: list[bytes], cuts: list[int], first: bytes) -> None:
    stream = b"".join(frame for frame in frames if frame != DONE)
    before = b"data: 1\n\n" if first.startswith(b"data") else b""
    assert frames_of([first, *cut(stream, cuts)]) == before + stream


@pytest.mark.parametrize(
    ("reads", "expected"),
    [
        pytest.param([b"data: 1\n", EVENT], b"data: 1 {}\n\n", id="behind a line of its event"),
        pytest.param([b"\r", b"data: 1\n", EVENT], b"data: 1 {}\n\n", id="the same after a CR"),
        pytest.param([EVENT, b'data: {"a":\rdata: 1}\n\n'], EVENT + b'data: {"a": 1}\n\n', id="with a CR inside"),
        pytest.param([EVENT, b"\xef\xbb\xbf" + EVENT, EVENT], EVENT + EVENT, id="with a mark that is text"),
        pytest.param([b"\xef\xbb\xbf", EVENT, b"\xef\xbb\xbf" + EVENT], EVENT, id="behind a mark"),
        pytest.param([DONE, EVENT], DONE, id="behind [DONE]"),
        pytest.param([EVENT, b"data:  \n\n", EVENT], EVENT + EVENT, id="blanks are no event"),
        pytest.param([EVENT, b"data:  [DONE]\t\n\n", EVENT], EVENT + DONE, id="[DONE] with blanks is one"),
        pytest.param(
            [EVENT, b":data: [DONE]\n\n", EVENT], EVENT + b":data: [DONE]\n\n" + EVENT, id="[DONE] in a comment is none"
        ),
        pytest.param([b": c", EVENT, EVENT], b": cdata: {}\n\n" + EVENT, id="behind half a comment"),
    ],
)
def test_read_that_looks_like_one_event_is_none_by_itself(reads: list[bytes], expected: bytes) -> None:
    assert frames_of(reads) == expected


@pytest.mark.parametrize("first", [[], [ROLE]], ids=["first", "later"])
def test_one_event_of_more_than_1_mib_in_a_read_is_refused(first: list[bytes]) -> None:
    event = b"data: {" + b"x" * FRAME_MOST_BYTES + b"}\n\n"
    with pytest.raises(FrameTooLong):
        frames_of([*first, event])


# Cases of the WHATWG standard


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        pytest.param(b"data: 1\n\n", b"data: 1\n\n", id="LF"),
        pytest.param(b"data: 1\r\n\r\n", b"data: 1\n\n", id="CRLF"),
        pytest.param(b"data: 1\r\r", b"data: 1\n\n", id="CR"),
        pytest.param(b"data: 1\r\n\n", b"data: 1\n\n", id="CRLF then LF"),
        pytest.param(b"data: 1\n\r\n", b"data: 1\n\n", id="LF then CRLF"),
        pytest.param(b"data: 1\r\r\n", b"data: 1\n\n", id="CR then CRLF"),
        pytest.param(b"data: 1\n\rdata: 2\r\r", b"data: 1\n\ndata: 2\n\n", id="LF then CR"),
        pytest.param(b"data: 1\r\n\r\ndata: 2\n\n", b"data: 1\n\ndata: 2\n\n", id="CRLF, later LF"),
        pytest.param(b"data: 1\n\ndata: 2\r\n\r\n", b"data: 1\n\ndata: 2\n\n", id="LF, later CRLF"),
        pytest.param(b"data:1\n\n", b"data: 1\n\n", id="no blank after the colon"),
        pytest.param(b"data:  1\n\n", b"data:  1\n\n", id="one blank is taken, the second stays"),
        pytest.param(b"data:\t1\n\n", b"data: \t1\n\n", id="a tab is no blank"),
        pytest.param(b"data: 1\ndata: 2\n\n", b"data: 1 2\n\n", id="two data lines"),
        pytest.param(b"data: 1\r\ndata: 2\r\n\r\n", b"data: 1 2\n\n", id="two data lines, CRLF"),
        pytest.param(b'data: {"a":\ndata: 1}\n\n', b'data: {"a": 1}\n\n', id="JSON on two lines"),
        pytest.param(b"event: x\nid: 7\nretry: 100\ndata: 1\n\n", b"data: 1\n\n", id="event, id, retry before"),
        pytest.param(b"data: 1\nevent: x\nid: 7\nretry: 9\n\n", b"data: 1\n\n", id="event, id, retry behind"),
        pytest.param(b"event: ping\n\ndata: 1\n\n", b"data: 1\n\n", id="an event without data"),
        pytest.param(b"data\n\ndata:\n\ndata: 1\n\n", b"data: 1\n\n", id="empty data"),
        pytest.param(b"Data: 0\nDATA: 0\n data: 0\ndata : 0\ndata: 1\n\n", b"data: 1\n\n", id="other field names"),
        pytest.param(b"nonsense\n\ndata: 1\n\n", b"data: 1\n\n", id="a line without a colon"),
        pytest.param(b": c\n\ndata: 1\n\n", b": c\n\ndata: 1\n\n", id="comment by itself"),
        pytest.param(b":\n\ndata: 1\n\n", b":\n\ndata: 1\n\n", id="empty comment"),
        pytest.param(b": c\ndata: 1\n\n", b": c\n\ndata: 1\n\n", id="comment before data"),
        pytest.param(b"data: 1\n: c\n\n", b": c\n\ndata: 1\n\n", id="comment behind data"),
        pytest.param(b": a\n: b\r\n\r\n", b": a\n\n: b\n\n", id="several comments"),
        pytest.param(b"\n\n\n\ndata: 1\n\n\n\n\ndata: 2\n\n", b"data: 1\n\ndata: 2\n\n", id="blank lines"),
        pytest.param(b"\xef\xbb\xbfdata: 1\n\n", b"data: 1\n\n", id="byte order mark"),
        pytest.param(b"\xef\xbb\xbfdata: 1\r\n\r\n", b"data: 1\n\n", id="byte order mark and CRLF"),
        pytest.param(b"\xef\xbb\xbf\xef\xbb\xbfdata: 1\n\ndata: 2\n\n", b"data: 2\n\n", id="two marks"),
        pytest.param(b"data: 1\n\n\xef\xbb\xbfdata: 2\n\n", b"data: 1\n\n", id="a mark further on is text"),
        pytest.param(b"data: \xff\xfe\xc3\n\n", b"data: \xff\xfe\xc3\n\n", id="not UTF-8"),
        pytest.param(b"data: \xff\xfe\xc3\r\n\r\n", b"data: \xff\xfe\xc3\n\n", id="not UTF-8, CRLF"),
        pytest.param("data: \u2028\u2029\x85\x0b\x0c\n\n".encode(), "data: \u2028\u2029\x85\x0b\x0c\n\n".encode(),
                     id="line breaks of Unicode only"),
        pytest.param("data: \u2028\x85\x0b\r\n\r\n".encode(), "data: \u2028\x85\x0b\n\n".encode(),
                     id="line breaks of Unicode only, CRLF"),
        pytest.param(b"data: \x00\n\n", b"data: \x00\n\n", id="NUL"),
        pytest.param(b"", b"", id="nothing"),
        pytest.param(b"\xef\xbb\xbf", b"", id="a byte order mark and no more"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("size", [1, 2, 3, 10_000], ids=["bytes", "pairs", "threes", "whole"])
def test_stream_becomes_clean_frames(stream: bytes, expected: bytes, size: int) -> None:
    assert frames_of(in_reads_of(size, stream)) == expected


def test_frame_comes_out_with_the_read_that_completes_it() -> None:
    reader = FrameReader()
    assert [reader.feed(read) for read in (b"data: ", b"1\n", b"\nda", b"ta: 2\n\n")] == [
        b"",
        b"",
        b"data: 1\n\n",
        b"data: 2\n\n",
    ]


def test_frame_that_ends_in_cr_comes_out_before_the_next_byte() -> None:
    reader = FrameReader()
    assert reader.feed(b"data: 1\r\r") == b"data: 1\n\n"
    assert reader.feed(b"data: 2\r\n\r") == b"data: 2\n\n"
    assert reader.feed(b"\ndata: 3\r\n\r\n") == b"data: 3\n\n"


def test_character_split_over_reads_is_whole() -> None:
    frame = "data: äö𝄞\n\n".encode()
    assert frames_of(in_reads_of(1, frame)) == frame


def test_10000_frames_in_one_read_cross_byte_for_byte() -> None:
    stream = b"".join(b'data: {"n":%d}\n\n' % number for number in range(10_000)) + DONE
    assert frames_of([stream]) == stream


def test_10000_frames_with_crlf_in_one_read_are_made_clean() -> None:
    frames = [b'data: {"n":%d}\n\n' % number for number in range(10_000)]
    assert frames_of([b"".join(frames).replace(b"\n", b"\r\n")]) == b"".join(frames)


# Long frames


def frame_of(length: int, line_end: bytes = b"\n") -> bytes:
    """A frame whose line has that many bytes."""
    return b"data: " + b"x" * (length - 6) + 2 * line_end


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("size", [READ_BYTES, 1000, 10**9], ids=["full reads", "short reads", "whole"])
def test_frame_just_below_1_mib_passes(line_end: bytes, size: int) -> None:
    frame = frame_of(FRAME_MOST_BYTES - 2, line_end)
    assert frames_of(in_reads_of(size, frame)) == frame_of(FRAME_MOST_BYTES - 2)


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("size", [READ_BYTES, 1000, 10**9], ids=["full reads", "short reads", "whole"])
@pytest.mark.parametrize("length", [FRAME_MOST_BYTES + 10, 8 * FRAME_MOST_BYTES], ids=["just above", "8 MiB"])
def test_frame_of_more_than_1_mib_is_refused(line_end: bytes, size: int, length: int) -> None:
    with pytest.raises(FrameTooLong):
        frames_of(in_reads_of(size, frame_of(length, line_end)))


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
def test_what_follows_a_frame_just_below_1_mib_passes_too(line_end: bytes) -> None:
    frame = frame_of(FRAME_MOST_BYTES - 10, line_end)
    reads = [frame[: -len(line_end)], line_end + b'data: {"a":"and so on', b' and on"}' + 2 * line_end]
    assert frames_of(reads) == frame_of(FRAME_MOST_BYTES - 10) + b'data: {"a":"and so on and on"}\n\n'


def test_many_frames_of_more_than_1_mib_together_pass_in_one_read() -> None:
    stream = frame_of(1000) * 2000
    assert frames_of([stream]) == stream


@pytest.mark.parametrize("line", [b"data: 12345\r\n", b"data:\r\n", b"data\n"], ids=["text", "empty", "no colon"])
def test_event_of_endless_data_lines_is_refused(line: bytes) -> None:
    with pytest.raises(FrameTooLong):
        frames_of([b": from here on line by line\r\n\r\n", *[line * 20_000] * 100])


def test_endless_lines_that_say_nothing_are_dropped() -> None:
    reader = FrameReader()
    for _ in range(40):
        assert reader.feed(b"event: ping\r\nid: 5\r\n" * 5000) == b""
    assert reader.feed(b"data: 1\r\n\r\n") == b"data: 1\n\n"


def test_endless_line_without_an_end_is_refused() -> None:
    with pytest.raises(FrameTooLong):
        frames_of([b"x" * READ_BYTES] * 20)


def test_time_is_linear_in_the_bytes_of_a_frame_in_small_reads() -> None:
    # 1 MB in reads of 16 bytes; searching or copying all of it each time would be 30 billion bytes.
    frame = frame_of(1_000_000)
    assert frames_of(in_reads_of(16, frame)) == frame


# The end


@pytest.mark.parametrize("stream", [b"data: [DONE]\n\n", b"data:[DONE]\r\n\r\n", b"data: [DONE]\r\r"], ids=repr)
@pytest.mark.parametrize("size", [1, 1000], ids=["bytes", "whole"])
def test_done_is_seen(stream: bytes, size: int) -> None:
    reader = FrameReader()
    assert b"".join(reader.feed(read) for read in in_reads_of(size, ROLE + stream)) == ROLE + DONE
    assert reader.done


def test_what_follows_done_is_dropped() -> None:
    reader = FrameReader()
    assert reader.feed(ROLE + DONE + USAGE + DONE) == ROLE + DONE
    assert [reader.feed(ROLE), reader.feed(b"\r"), reader.end()] == [b"", b"", b""]


def test_done_at_the_very_start_is_the_whole_stream() -> None:
    reader = FrameReader()
    assert reader.feed(DONE + ROLE) == DONE
    assert reader.done


def test_done_without_its_blank_line_counts_at_the_end() -> None:
    reader = FrameReader()
    assert reader.feed(ROLE + b"data: [DONE]") == ROLE
    assert reader.end() == DONE
    assert reader.done


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(b'data: {"content":"data: [DONE]"}\n\n', id="as a text"),
        pytest.param(b'data: {"content":"\\n\\ndata: [DONE]\\n\\n"}\n\n', id="with escaped line ends"),
        pytest.param(b'data: {"content":"[DONE]"}\n\n', id="in brackets only"),
        pytest.param(b": data: [DONE]\n\n", id="in a comment"),
        pytest.param(b'data: "[DONE]"\n\n', id="as JSON"),
        pytest.param(b"data: [DONE]x\n\n", id="with more behind"),
    ],
)
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
def test_text_that_speaks_of_done_does_not_end_the_stream(frame: bytes, line_end: bytes) -> None:
    reader = FrameReader()
    assert reader.feed(frame.replace(b"\n", line_end) + STOP) == frame + STOP
    assert not reader.done


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        pytest.param(STOP[:-1], STOP, id="half a blank line"),
        pytest.param(STOP[:-2], STOP, id="no blank line"),
        pytest.param(STOP[:-2] + b"\r", STOP, id="CR"),
        pytest.param(ROLE + STOP[:-2], ROLE + STOP, id="after a whole frame"),
        pytest.param(b": c", b": c\n\n", id="comment"),
        pytest.param(b"event: x\n", b"", id="no data"),
        pytest.param(ROLE, ROLE, id="nothing left"),
    ],
)
def test_clean_end_completes_the_last_frame(stream: bytes, expected: bytes) -> None:
    assert frames_of([stream]) == expected


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("left", [len(b"data: "), 10, len(STOP) - 4], ids=str)
def test_half_a_frame_at_the_end_is_no_frame(left: int, line_end: bytes) -> None:
    # Where the end of the connection is the end of the body, a cut looks like a clean end.
    assert frames_of([ROLE.replace(b"\n", line_end) + STOP[:left]]) == ROLE


# Is anything missing?


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [
        pytest.param([], False, id="nothing"),
        pytest.param([ROLE], False, id="no finish_reason"),
        pytest.param([ROLE, STOP], True, id="finish_reason last"),
        pytest.param([ROLE + STOP], True, id="in one read"),
        pytest.param([ROLE, STOP, USAGE], True, id="usage behind"),
        pytest.param([ROLE, STOP + USAGE], True, id="usage behind in one read"),
        pytest.param([STOP, ROLE], False, id="more behind"),
        pytest.param([STOP, KEEPALIVE], True, id="comment behind"),
        pytest.param([STOP + KEEPALIVE], True, id="comment behind in one read"),
        pytest.param([STOP, KEEPALIVE, KEEPALIVE, KEEPALIVE], True, id="comments behind"),
        pytest.param([STOP, KEEPALIVE, USAGE, KEEPALIVE], True, id="usage among comments"),
        pytest.param([ROLE, USAGE], False, id="usage and no finish_reason"),
        pytest.param([USAGE], False, id="usage only"),
        pytest.param([STOP.replace(b'":', b'" : ')], True, id="with blanks"),
        pytest.param([b'data: {"choices":[{"finish_reason":"length"}]}\n\n'], True, id="length"),
        pytest.param([b'data: {"choices":[{"finish_reason":null}]}\n\n'], False, id="null"),
        pytest.param([b'data: {"content":"\\"finish_reason\\":\\"stop\\""}\n\n'], False, id="in a text"),
        pytest.param([b'data: {"type":"response.completed"}\n\n'], True, id="response completed"),
        pytest.param([b'data: {"type":"response.failed"}\n\n'], True, id="response failed"),
        pytest.param([b'data: {"type":"response.incomplete"}\n\n'], True, id="response incomplete"),
        pytest.param([b'data: {"type":"response.created"}\n\n'], False, id="response created"),
        pytest.param([ROLE * 1000 + STOP, USAGE], True, id="behind much in one read"),
        pytest.param([STOP + ROLE * 1000], False, id="before much in one read"),
        pytest.param([b'data: {"type":"response.completed","text":"%b"}\n\n' % (b"x" * 9000)], True, id="a long frame"),
    ],
)
def test_stream_is_finished_when_its_last_frame_says_why_it_ended(blocks: list[bytes], expected: bool) -> None:
    reader = FrameReader()
    for block in blocks:
        reader.feed(block)
    assert reader.is_finished is expected


def test_tail_of_much_in_one_read_is_whole_frames_at_its_end() -> None:
    reader = FrameReader()
    reader.feed(STOP)
    reader.feed(ROLE * 1000)
    assert len(reader.tail()) < TAIL_BYTES + len(ROLE)
    assert reader.tail() == ROLE * (len(reader.tail()) // len(ROLE))


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [
        pytest.param([ROLE], False, id="no error"),
        pytest.param([ROLE, b'data: {"error":{"message":"x"}}\n\n'], True, id="error"),
        pytest.param([b'data: { "error" : {"message":"x"}}\n\n'], True, id="with blanks"),
        pytest.param([b'data: {"error":{"message":"x"}}\n\n', ROLE], False, id="more behind"),
        pytest.param([b'event: error\r\ndata: {"error":{}}\r\n\r\n'], True, id="as an event of its own"),
        pytest.param([b'data: {"content":"{\\"error\\":1}"}\n\n'], False, id="in a text"),
    ],
)
def test_stream_ended_in_error_when_its_last_frame_is_one(blocks: list[bytes], expected: bool) -> None:
    reader = FrameReader()
    for block in blocks:
        reader.feed(block)
    assert reader.ended_in_error is expected


# Our own frames


def test_error_frame_is_one_clean_frame_in_the_shape_of_openai() -> None:
    frame = error_frame('a "text"\nof two lines', type_="t", code="c")
    assert frames_of([frame]) == frame
    error = {"message": 'a "text"\nof two lines', "type": "t", "param": None, "code": "c"}
    assert json.loads(frame.removeprefix(b"data: ")) == {"error": error}


@pytest.mark.parametrize("frame", [KEEPALIVE, DONE], ids=["comment", "done"])
def test_constant_frames_are_clean(frame: bytes) -> None:
    assert frames_of([frame]) == frame
