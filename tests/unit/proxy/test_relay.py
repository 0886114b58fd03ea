import json
import re
from collections.abc import Callable, Iterable

import pytest

from proxy.errors import CallerGone, ProxyError, UpstreamTimeout, UpstreamUnavailable
from proxy.relay import (
    BROKE_OFF,
    HELD_MOST_BYTES,
    LINGER_S,
    PIECE_BYTES,
    PieceRelay,
    StreamRelay,
    read_or_relay,
)
from proxy.sse import DONE, FRAME_MOST_BYTES, KEEPALIVE
from proxy.upstreams.answer import WHOLE_MOST_BYTES, read_whole

MIB = 1024 * 1024
FRAME = b'data: {"choices":[{"delta":{"content":"Hi"},"finish_reason":null}]}\n\n'
STOP = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"total_tokens":3}}\n\n'
COUNTS = b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":12}}\n\n'
ERROR = b'data: {"error":{"message":"overloaded"}}\n\n'


class FakeBody:
    """An upstream's answer as a list of what its reads give: bytes, None for a wait in vain, or an error."""

    def __init__(self, *reads: bytes | ProxyError | None) -> None:
        self._reads = list(reads)
        self.waits: list[float | None] = []
        self.closed = 0
        self.lingers: list[float] = []

    def read(self, wait_s: float | None = None, at_least: int = 1) -> bytes | None:
        self.waits.append(wait_s)
        read = self._reads.pop(0) if self._reads else b""
        if isinstance(read, ProxyError):
            raise read
        return read

    def finish(self, wait_s: float) -> None:
        self.lingers.append(wait_s)
        self.close()

    def close(self) -> None:
        self.closed += 1


def relayed(*reads: bytes | ProxyError | None) -> tuple[list[bytes], StreamRelay, FakeBody]:
    """What a caller gets who reads to the end, and how it went."""
    body = FakeBody(*reads)
    relay = StreamRelay(body, keepalive_s=4)
    pieces = list(relay)
    relay.close()
    return pieces, relay, body


# Streams


def test_each_read_leaves_at_once() -> None:
    pieces, _, _ = relayed(FRAME, FRAME + STOP, DONE)
    assert pieces == [FRAME, FRAME + STOP, DONE]


def test_frame_leaves_with_the_read_that_completes_it() -> None:
    pieces, _, _ = relayed(FRAME[:10], FRAME[10:] + STOP[:5], STOP[5:] + DONE)
    assert pieces == [FRAME, STOP + DONE]


def test_stream_that_ends_in_done_is_done() -> None:
    _, relay, _ = relayed(FRAME, DONE)
    assert relay.end == "done"


def test_nothing_is_read_after_done() -> None:
    pieces, _, body = relayed(FRAME, DONE, FRAME)
    assert pieces == [FRAME, DONE]
    assert len(body.waits) == 2


def test_what_stands_behind_done_is_dropped() -> None:
    pieces, relay, _ = relayed(FRAME + DONE + FRAME + DONE)
    assert pieces == [FRAME + DONE]
    assert relay.end == "done"


@pytest.mark.parametrize(
    "reads",
    [
        pytest.param([FRAME, STOP], id="last frame"),
        pytest.param([FRAME + STOP + USAGE], id="usage behind"),
        pytest.param([STOP, None, None, None], id="comments of ours behind"),
        pytest.param([STOP, KEEPALIVE, KEEPALIVE], id="comments of the upstream behind"),
        pytest.param([FRAME, STOP[:-1]], id="no blank line at the end"),
    ],
)
def test_done_is_added_where_only_it_is_missing(reads: list[bytes | None]) -> None:
    pieces, relay, _ = relayed(*reads)
    assert pieces[-1] == DONE
    assert b"".join(pieces).count(DONE) == 1
    assert BROKE_OFF not in pieces
    assert relay.end == "done"


@pytest.mark.parametrize(
    "reads",
    [
        pytest.param([FRAME], id="no finish_reason"),
        pytest.param([FRAME, USAGE], id="usage only"),
        pytest.param([], id="nothing at all"),
        pytest.param([KEEPALIVE], id="comments only"),
        pytest.param([FRAME, STOP[:20]], id="half a frame"),
        pytest.param([FRAME, UpstreamUnavailable()], id="cut"),
        pytest.param([FRAME, STOP, UpstreamUnavailable()], id="cut behind a finish_reason"),
        pytest.param([FRAME, STOP[:20], UpstreamUnavailable()], id="cut in a frame"),
        pytest.param([FRAME, b"data: " + b"x" * FRAME_MOST_BYTES + b"x"], id="frame too long"),
    ],
)
def test_cut_stream_ends_with_one_error_event_and_no_done(reads: list[bytes | ProxyError]) -> None:
    pieces, relay, body = relayed(*reads)
    whole = [read for read in reads if isinstance(read, bytes) and read.endswith(b"\n\n")]
    assert pieces == [*whole, BROKE_OFF]
    assert relay.end == "cut"
    assert body.closed


NAMED = b'event: response.created\ndata: {"type":"response.created"}\n\n'
COMPLETED = b'event: response.completed\ndata: {"type":"response.completed"}\n\n'


@pytest.mark.parametrize(
    ("reads", "pieces", "end"),
    [
        pytest.param([NAMED, COMPLETED], [NAMED, COMPLETED], "done", id="its own end"),
        pytest.param([NAMED, COMPLETED + DONE], [NAMED, COMPLETED + DONE], "done", id="the upstream says [DONE]"),
        pytest.param([NAMED], [NAMED, BROKE_OFF], "cut", id="no end"),
        pytest.param([NAMED, UpstreamUnavailable()], [NAMED, BROKE_OFF], "cut", id="broken"),
    ],
)
def test_stream_whose_events_have_names_crosses_as_it_is(
    reads: list[bytes | ProxyError], pieces: list[bytes], end: str
) -> None:
    relay = StreamRelay(FakeBody(*reads), keepalive_s=4, named=True)
    assert list(relay) == pieces
    assert relay.end == end


def test_stream_that_takes_too_long_ends_with_one_error_event() -> None:
    pieces, relay, _ = relayed(FRAME, UpstreamTimeout())
    assert pieces == [FRAME, BROKE_OFF]
    assert relay.end == "timeout"


@pytest.mark.parametrize("end", [b"", UpstreamUnavailable()], ids=["clean end", "cut"])
def test_upstreams_own_error_event_is_the_only_one(end: bytes | ProxyError) -> None:
    pieces, relay, _ = relayed(FRAME, ERROR, end)
    assert pieces == [FRAME, ERROR]
    assert relay.end == "cut"


def test_upstream_is_closed_before_the_error_event_waits_for_a_slow_caller() -> None:
    body = FakeBody(UpstreamUnavailable())
    assert next(iter(StreamRelay(body, keepalive_s=4))) == BROKE_OFF
    assert body.closed


def test_silence_becomes_comments() -> None:
    pieces, _, body = relayed(None, FRAME, None, None, DONE)
    assert pieces == [KEEPALIVE, FRAME, KEEPALIVE, KEEPALIVE, DONE]
    assert set(body.waits) == {4}


def test_comment_never_stands_inside_a_frame() -> None:
    pieces, _, _ = relayed(FRAME[:10], None, FRAME[10:], DONE)
    assert pieces == [KEEPALIVE, FRAME, DONE]


def test_stream_without_comments_is_waited_for_without_a_limit() -> None:
    body = FakeBody(DONE)
    list(StreamRelay(body, keepalive_s=None))
    assert body.waits == [None]


def test_caller_who_is_seen_to_go_gets_nothing_more() -> None:
    pieces, relay, body = relayed(FRAME, CallerGone())
    assert pieces == [FRAME]
    assert relay.end == "caller_gone"
    assert body.closed


@pytest.mark.parametrize("taken", [0, 1, 2])
def test_upstream_is_closed_where_the_caller_stops_reading(taken: int) -> None:
    body = FakeBody(FRAME, FRAME, FRAME)
    relay = StreamRelay(body, keepalive_s=4)
    pieces = iter(relay)
    for _ in range(taken):
        next(pieces)
    relay.close()
    assert relay.end == "caller_gone"
    assert body.closed
    assert body.lingers == []


def test_connection_is_kept_after_done_by_reading_what_little_is_left() -> None:
    _, _, body = relayed(FRAME, DONE)
    assert body.lingers == [LINGER_S]


def test_bytes_and_first_byte_are_counted() -> None:
    body = FakeBody(None, FRAME, DONE)
    relay = StreamRelay(body, keepalive_s=4)
    assert relay.first_byte_at is None
    sent = b"".join(relay)
    assert relay.bytes_sent == len(sent)
    assert relay.first_byte_at is not None


@pytest.mark.parametrize(
    ("reads", "frames"),
    [
        pytest.param([FRAME, STOP, DONE], 3, id="one a read"),
        pytest.param([FRAME + FRAME + STOP + DONE], 4, id="several a read"),
        pytest.param([FRAME[:9], FRAME[9:], DONE], 2, id="one in two reads"),
        pytest.param([None, FRAME, None, DONE], 4, id="comments of ours"),
        pytest.param([KEEPALIVE + FRAME, DONE], 3, id="comments of the upstream"),
        pytest.param([FRAME, STOP], 3, id="with the [DONE] that we add"),
        pytest.param([FRAME, UpstreamUnavailable()], 2, id="with the error event"),
        pytest.param([FRAME, b""], 2, id="with the error event after a clean end"),
        pytest.param([FRAME, CallerGone()], 1, id="caller gone"),
        pytest.param([FRAME.replace(b"\n", b"\r\n"), DONE], 2, id="CRLF"),
        pytest.param([FRAME + DONE + FRAME], 2, id="without what stands behind [DONE]"),
        pytest.param([CallerGone()], 0, id="none"),
    ],
)
def test_frames_and_bytes_are_those_that_went_out(reads: list[bytes | ProxyError | None], frames: int) -> None:
    pieces, relay, _ = relayed(*reads)
    sent = b"".join(pieces)
    assert (relay.frames, relay.bytes_sent) == (frames, len(sent))
    assert sent.count(b"\n\n") == frames


@pytest.mark.parametrize(
    "reads",
    [
        pytest.param([FRAME, STOP, COUNTS, DONE], id="before [DONE]"),
        pytest.param([FRAME + STOP + COUNTS + DONE], id="in one read"),
        pytest.param([FRAME, STOP[:-2] + b"\n\n" + COUNTS[:20], COUNTS[20:] + DONE], id="in two reads"),
        pytest.param([FRAME, COUNTS, None, None, DONE], id="comments behind"),
        pytest.param([STOP, COUNTS], id="no [DONE]"),
        pytest.param([STOP, COUNTS[:-2]], id="no blank line"),
        pytest.param([FRAME, COUNTS, UpstreamUnavailable()], id="cut behind"),
        pytest.param([FRAME, COUNTS.replace(b"\n", b"\r\n"), DONE], id="CRLF"),
        pytest.param([FRAME.replace(b"}]", b'}],"usage":null'), COUNTS, DONE], id="null before"),
    ],
)
def test_usage_is_read_from_the_last_frames(reads: list[bytes | ProxyError | None]) -> None:
    _, relay, _ = relayed(*reads)
    assert relay.usage() == (9, 12)


@pytest.mark.parametrize(
    "reads",
    [[], [FRAME, DONE], [FRAME, UpstreamUnavailable()], [CallerGone()]],
    ids=["nothing", "whole", "cut", "caller gone"],
)
def test_stream_that_tells_no_usage_has_none(reads: list[bytes | ProxyError]) -> None:
    _, relay, _ = relayed(*reads)
    assert relay.usage() is None


def test_text_of_the_error_event_is_sorted_right_by_ragflow() -> None:
    # With "server", "unavailable" or 50x in it RAGFlow would send the whole answer again; with the others give up.
    error = json.loads(BROKE_OFF.removeprefix(b"data: "))["error"]
    assert error["message"] == "The upstream stream broke off."
    for word in ("server", "unavailable", "auth", "key", "token", "invalid", "format", "quota", "credit", "capacity"):
        assert word not in error["message"].lower()
    assert not re.search(r"\d{3}", error["message"])


# Bodies in pieces


def pieces_of(relay: Iterable[bytes]) -> list[bytes]:
    return list(relay)


def test_binary_body_passes_as_it_comes() -> None:
    body = FakeBody(b"\x00\xff", b"\r\n\r\n", b"data: [DONE]\n\n", b"more")
    relay = PieceRelay(body)
    assert pieces_of(relay) == [b"\x00\xff", b"\r\n\r\n", b"data: [DONE]\n\n", b"more"]
    assert (relay.end, relay.bytes_sent) == ("done", 24)
    assert relay.first_byte_at is not None


def test_what_was_read_before_comes_first() -> None:
    assert pieces_of(PieceRelay(FakeBody(b"c"), [b"a", b"b"])) == [b"a", b"b", b"c"]


def test_empty_body_has_no_pieces() -> None:
    relay = PieceRelay(FakeBody())
    assert pieces_of(relay) == []
    assert relay.end == "done"


def test_cut_body_breaks_the_connection() -> None:
    relay = PieceRelay(FakeBody(b"a", UpstreamUnavailable()))
    pieces = iter(relay)
    assert next(pieces) == b"a"
    with pytest.raises(ConnectionResetError):  # gunicorn closes the connection without a word
        next(pieces)
    assert relay.end == "cut"


def test_body_for_a_caller_who_has_gone_just_ends() -> None:
    relay = PieceRelay(FakeBody(b"a", CallerGone()))
    assert pieces_of(relay) == [b"a"]
    assert relay.end == "caller_gone"


def test_body_whose_caller_stops_reading_is_closed() -> None:
    body = FakeBody(b"a", b"b")
    relay = PieceRelay(body)
    next(iter(relay))
    relay.close()
    assert relay.end == "caller_gone"
    assert body.closed


# Whole bodies


def test_whole_body_is_put_together_and_closed() -> None:
    body = FakeBody(b'{"a":', b"1}")
    assert read_whole(body) == b'{"a":1}'
    assert body.closed


def test_body_of_8_mib_is_held() -> None:
    body = FakeBody(b"x" * (HELD_MOST_BYTES - 1), b"x")
    assert read_or_relay(body) == b"x" * HELD_MOST_BYTES
    assert body.closed


def test_body_of_more_than_8_mib_goes_on_in_pieces_with_nothing_lost() -> None:
    body = FakeBody(b"x" * HELD_MOST_BYTES, b"y", b"z")
    relay = read_or_relay(body)
    assert isinstance(relay, PieceRelay)
    assert not body.closed
    assert b"".join(relay.start) == b"x" * HELD_MOST_BYTES + b"y"
    assert b"".join(relay) == b"x" * HELD_MOST_BYTES + b"yz"


@pytest.mark.parametrize("read", [lambda relay: len(list(relay)), lambda relay: relay.close()], ids=["sent", "closed"])
def test_what_was_read_before_is_not_held_any_longer_than_it_takes(read: Callable[[PieceRelay], object]) -> None:
    relay = read_or_relay(FakeBody(*[b"x" * MIB] * 9))
    assert isinstance(relay, PieceRelay)
    pieces = iter(relay)
    assert {len(next(pieces)) for _ in range(16)} == {PIECE_BYTES}
    assert sum(map(len, relay.start)) == 8 * MIB
    read(relay)
    assert not relay.start


def test_body_that_is_to_be_changed_is_read_whole_up_to_64_mib() -> None:
    assert len(read_whole(FakeBody(b"x" * WHOLE_MOST_BYTES))) == WHOLE_MOST_BYTES
    body = FakeBody(b"x" * WHOLE_MOST_BYTES, b"y")
    with pytest.raises(UpstreamUnavailable):
        read_whole(body)
    assert body.closed


@pytest.mark.parametrize("read", [read_whole, read_or_relay])
@pytest.mark.parametrize("error", [UpstreamUnavailable(), UpstreamTimeout(), CallerGone()], ids=lambda e: e.code)
def test_error_in_a_whole_body_closes_it(error: ProxyError, read: Callable[[FakeBody], object]) -> None:
    body = FakeBody(b"a", error)
    with pytest.raises(type(error)):
        read(body)
    assert body.closed
