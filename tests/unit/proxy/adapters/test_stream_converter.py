"""Bytes to frames; how the bytes are cut into reads never matters."""

import json
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.adapters import ApiError, ChatStream
from proxy.adapters.stream_converter import StreamConverter, chunks_in, frames_of, to_json
from proxy.sse import DONE, FRAME_MOST_BYTES, FrameTooLong


class Echo(ChatStream):
    """Each event becomes a chunk with its name and data; `end` ends the answer, `odd` is no event, `no` is an error."""

    def event(self, name: str, data: str) -> Iterable[dict[str, Any]]:
        if data == "no":
            raise ApiError(429, "too much", code="c")
        if data != "odd":
            yield self.chunk({"content": f"{name}|{data}"}, finish_reason="stop" if data == "end" else None)

    def end(self) -> Iterable[dict[str, Any]]:
        return [{"choices": [], "last": True}]


def converted(*reads: bytes) -> bytes:
    converter = StreamConverter(Echo({}))
    return b"".join([*map(converter.feed, reads), converter.end()])


def documents(frames: bytes) -> list[Any]:
    texts = [frame.removeprefix(b"data: ") for frame in frames.split(b"\n\n")[:-1]]
    return [text.decode() if text == b"[DONE]" else json.loads(text) for text in texts]


def contents(frames: bytes) -> list[str]:
    chosen = [document["choices"] for document in documents(frames) if isinstance(document, dict)]
    return [choices[0]["delta"]["content"] for choices in chosen if choices]


WHOLE = (
    b"\xef\xbb\xbf: ping\n\nid:1\nevent:result\n:HTTP_STATUS/200\ndata:a\n\n"
    b"data: b \r\n\r\ndata: c\rdata: d\r\rdata:\n\nevent: x\ndata: odd\n\ndata:\xc3\xb6\n\ndata: end\n\n"
)


def test_names_comments_and_line_ends_are_read_as_the_standard_says() -> None:
    assert contents(converted(WHOLE)) == ["result|a", "|b ", "|c d", "|ö", "|end"]


@given(st.lists(st.integers(0, 10_000)))
def test_reads_may_be_cut_anywhere(at: Sequence[int]) -> None:
    places = [0, *sorted(place % len(WHOLE) for place in at), len(WHOLE)]
    frames = converted(*(WHOLE[start:end] for start, end in pairwise(places) if start < end))
    assert contents(frames) == ["result|a", "|b ", "|c d", "|ö", "|end"]
    assert documents(frames)[-2:] == [{"choices": [], "last": True}, "[DONE]"]


@pytest.mark.parametrize(
    ("reads", "last"),
    [
        pytest.param([b"data: a\n\n"], {"choices": [], "last": True}, id="no reason to end"),
        pytest.param([b"data: end\n\n"], "[DONE]", id="a reason"),
        pytest.param([b"data: end\n\ndata: [DONE]\n\n", b"data: b\n\n"], "[DONE]", id="the upstream's own [DONE]"),
    ],
)
def test_done_follows_where_the_answer_has_ended(reads: list[bytes], last: Any) -> None:
    assert documents(converted(*reads))[-1] == last


def test_error_ends_the_stream() -> None:
    converter = StreamConverter(Echo({}))
    frames = converter.feed(b"data: a\n\ndata: no\n\ndata: b\n\n")
    assert converter.ended
    error = {"message": "too much", "type": "rate_limit_error", "param": None, "code": "c"}
    assert documents(frames)[1:] == [{"error": error}]
    assert converter.end() == b""


def test_error_at_the_end_is_the_upstreams_too() -> None:
    class Late(Echo):
        def end(self) -> Iterable[dict[str, Any]]:
            yield from super().end()
            raise ApiError(503, "too late")

    converter = StreamConverter(Late({}))
    assert converter.feed(b"data: a\n\n")
    last, error = documents(converter.end())
    assert (last["last"], error["error"]["message"], converter.ended) == (True, "too late", True)


@pytest.mark.parametrize("status", [200, 401])
def test_error_that_is_not_for_the_caller_is_raised(status: int) -> None:
    class Refused(Echo):
        def event(self, name: str, data: str) -> Iterable[dict[str, Any]]:
            raise ApiError(status, "our key")

    with pytest.raises(ApiError):
        StreamConverter(Refused({})).feed(b"data: a\n\n")


def test_fault_is_told_behind_the_frames_that_came_before_it_in_one_read() -> None:
    class Strict(Echo):
        def event(self, name: str, data: str) -> Iterable[dict[str, Any]]:
            if data == "bad":
                raise KeyError(data)
            return super().event(name, data)

    converter = StreamConverter(Strict({}))
    assert contents(converter.feed(b"data: a\n\ndata: b\n\ndata: bad\n\ndata: c\n\n")) == ["|a", "|b"]
    for _ in range(2):
        assert isinstance(converter.fault, KeyError)
        with pytest.raises(KeyError):
            converter.end()


def test_own_done_of_the_upstream_ends_the_stream_though_it_stays_open() -> None:
    converter = StreamConverter(Echo({}))
    assert converter.feed(b"data: end\n\ndata: [DONE]\n\n").endswith(DONE)
    assert converter.ended


def test_half_an_event_at_the_end_is_dropped() -> None:
    assert contents(converted(b'data: a\n\ndata: {"b')) == ["|a"]


def test_event_that_is_too_long_is_refused() -> None:
    with pytest.raises(FrameTooLong):
        converted(b"data: " + b"a" * FRAME_MOST_BYTES + b"\n\n")


def test_stream_that_came_whole_gives_the_same_chunks() -> None:
    stream = Echo({})
    assert [chunk["choices"][0]["delta"]["content"] for chunk in chunks_in(WHOLE, stream)[:-1]] == contents(
        converted(WHOLE)
    )
    with pytest.raises(ApiError):
        chunks_in(b"data: no\n\n", stream)


def test_half_a_surrogate_pair_can_be_sent() -> None:
    assert to_json({"a": "\ud83d"}) == b'{"a": "?"}'
    assert frames_of([{"a": 1}]) == b'data: {"a": 1}\n\n' + DONE
    with pytest.raises(ValueError, match="JSON"):
        to_json(float("nan"))
