"""The kinds of faults: each a function from the normal answer to the faulty one, and its parameters.

`faults` reads requests for them and decides which request gets which. To add a kind, add a line to KINDS.
"""

import base64
import gzip
import itertools
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any

from sandbox import fault_parameters as read
from sandbox.answers.shape import Answer, Ending, Frame, Headers, Part, bytes_answer, encode, stream_answer
from sandbox.answers.vectors import unpack
from sandbox.fault_parameters import REQUIRED, Parameter
from sandbox.upstream import refuse_token


class Stage(IntEnum):
    """The order in which faults change one answer: one fault of each stage, but of CHANGE all that match."""

    REPLACE = 0
    DELAY = 1
    CHANGE = 2
    SEND = 3
    AFTER = 4


@dataclass(frozen=True)
class Kind:
    """One kind of fault."""

    stage: Stage
    change: Callable[..., Answer]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    upstream_only: bool = False
    streams_only: bool = False
    path_suffix: str = ""


def _bare(frames: Iterable[Frame], ending: Ending) -> Answer:
    return Answer(0, (), frames, is_bare=True, ending=ending)


def _instead(make: Callable[..., Answer]) -> Callable[..., Answer]:
    """Build a change that makes a new answer, whatever the normal one is."""

    def change(_: Answer, **parameters: Any) -> Answer:
        return make(**parameters)

    return change


def _raw(pieces: list[bytes], pause_ms: float, **first: bytes) -> Answer:
    # first holds the parameter "bytes", a name that Python has taken.
    at_once = [Frame(data) for data in first.values() if data]
    return _bare(at_once + [Frame(piece, pause_ms / 1000) for piece in pieces], Ending.FIN)


def _status(status: int, body: bytes, headers: Headers) -> Answer:
    return _given(status, "application/json", body, headers)


def _reply(content_type: str, body: bytes, headers: Headers, repeat: int) -> Answer:
    return _given(200, content_type, body * repeat, headers)


def _redirect(location: str, status: int) -> Answer:
    return _given(status, "text/plain", b"", (("Location", location),))


def _given(status: int, content_type: str, body: bytes, headers: Headers) -> Answer:
    """Build an answer whose given headers go before ours of the same name."""
    given = {name.lower() for name, _ in headers}
    answer = bytes_answer(status, content_type, body)
    own = tuple(header for header in answer.headers if header[0].lower() not in given)
    return replace(answer, headers=own + headers)


def _frames(pieces: list[bytes], pause_ms: float) -> Answer:
    pauses_s = itertools.chain([0.0], itertools.repeat(pause_ms / 1000))
    return stream_answer(map(Frame, pieces, pauses_s))


def _ignore_base64(answer: Answer) -> Answer:
    value = json.loads(b"".join(frame.data for frame in answer.frames))
    for item in value.get("data", ()):
        if isinstance(item["embedding"], str):
            item["embedding"] = unpack(base64.b64decode(item["embedding"]))
    return _with_body(answer, encode(value))


def _without(*parts: Part) -> Callable[[Answer], Answer]:
    def change(answer: Answer) -> Answer:
        return replace(answer, frames=(frame for frame in answer.frames if frame.part not in parts))

    return change


def _sse_crlf(answer: Answer) -> Answer:
    frames = (replace(frame, data=frame.data.replace(b"\n", b"\r\n")) for frame in answer.frames)
    return replace(answer, frames=frames)


def _gzip(answer: Answer) -> Answer:
    if answer.is_stream:
        answer = replace(answer, frames=_gzip_frames(answer.frames))
    else:
        body = b"".join(frame.data for frame in answer.frames)
        answer = _with_body(answer, gzip.compress(body, mtime=0))
    return replace(answer, headers=(*answer.headers, ("Content-Encoding", "gzip")))


def _gzip_frames(frames: Iterable[Frame]) -> Iterator[Frame]:
    # 16 more than the window's bits: gzip's head and tail. The flush lets each frame be read at once.
    packer = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    for frame in frames:
        yield replace(frame, data=packer.compress(frame.data) + packer.flush(zlib.Z_SYNC_FLUSH))
    yield Frame(packer.flush(), part="piece")


def _with_body(answer: Answer, body: bytes) -> Answer:
    headers = tuple(header for header in answer.headers if header[0].lower() != "content-length")
    return replace(answer, headers=(*headers, ("Content-Length", str(len(body)))), frames=(Frame(body),))


def _cut(ending: Ending) -> Callable[..., Answer]:
    def change(answer: Answer, frames: int, half: bool = False) -> Answer:
        return replace(answer, frames=_first(answer.frames, frames, half), ending=ending)

    return change


def _first(frames: Iterable[Frame], count: int, half: bool) -> Iterator[Frame]:
    rest = iter(frames)
    yield from itertools.islice(rest, count)
    for frame in itertools.islice(rest, 1 if half else 0):
        yield replace(frame, data=frame.data[: len(frame.data) // 2], part="piece")


def _short(answer: Answer, missing_bytes: int) -> Answer:
    frames = list(answer.frames)
    headers = tuple(header for header in answer.headers if header[0].lower() != "content-length")
    promised = sum(len(frame.data) for frame in frames) + missing_bytes
    headers += (("Content-Length", str(promised)),)
    return replace(answer, headers=headers, frames=frames, ending=Ending.FIN)


def _drip(answer: Answer, pause_ms: float, body: bytes | None) -> Answer:
    if body is not None:
        answer = _with_body(replace(answer, is_stream=False), body)
    return replace(answer, frames=_drops(answer.frames, pause_ms / 1000))


def _drops(frames: Iterable[Frame], pause_s: float) -> Iterator[Frame]:
    for frame in frames:
        last = len(frame.data) - 1
        for index in range(len(frame.data)):
            yield Frame(frame.data[index : index + 1], pause_s, frame.part if index == last else "piece")


_CONTENT = {"body": Parameter(read.content, b""), "headers": Parameter(read.fields, ())}
_END: tuple[Part, ...] = ("finish", "usage", "done")
_FRAMES = Parameter(read.count, 2)
_CUT = {"frames": _FRAMES, "half": Parameter(read.flag, False)}
_PAUSE = Parameter(read.milliseconds, 0.0)

KINDS: Mapping[str, Kind] = {
    "status": Kind(
        Stage.REPLACE,
        _instead(_status),
        {"status": Parameter(read.status, REQUIRED), **_CONTENT},
    ),
    "reply": Kind(
        Stage.REPLACE,
        _instead(_reply),
        {
            "content_type": Parameter(read.line, "application/json"),
            "repeat": Parameter(read.count, 1),
            **_CONTENT,
        },
    ),
    "redirect": Kind(
        Stage.REPLACE,
        _instead(_redirect),
        {"location": Parameter(read.line, REQUIRED), "status": Parameter(read.redirect_status, 302)},
    ),
    "hang": Kind(Stage.REPLACE, _instead(lambda: _bare((), Ending.SILENCE))),
    "reset": Kind(Stage.REPLACE, _instead(lambda: _bare((), Ending.RESET))),
    "close": Kind(Stage.REPLACE, _instead(lambda: _bare((), Ending.FIN))),
    "raw": Kind(
        Stage.REPLACE,
        _instead(_raw),
        {
            "bytes": Parameter(read.base64_bytes, b""),
            "pieces": Parameter(read.base64_list, ()),
            "pause_ms": _PAUSE,
        },
    ),
    "refuse_token": Kind(Stage.REPLACE, _instead(lambda: refuse_token("valid")), upstream_only=True),
    "frames": Kind(
        Stage.REPLACE,
        _instead(_frames),
        {"pieces": Parameter(read.base64_list, REQUIRED), "pause_ms": _PAUSE},
        upstream_only=True,
        streams_only=True,
    ),
    "delay": Kind(
        Stage.DELAY,
        lambda answer, delay_s: replace(answer, delay_s=delay_s),
        {"delay_s": Parameter(read.seconds, REQUIRED)},
    ),
    "ignore_base64": Kind(Stage.CHANGE, _ignore_base64, upstream_only=True, path_suffix="/embeddings"),
    "no_done": Kind(Stage.CHANGE, _without("done"), upstream_only=True, streams_only=True),
    "no_finish": Kind(Stage.CHANGE, _without(*_END), upstream_only=True, streams_only=True),
    "sse_crlf": Kind(Stage.CHANGE, _sse_crlf, upstream_only=True, streams_only=True),
    "gzip": Kind(Stage.CHANGE, _gzip, upstream_only=True),
    "cut": Kind(Stage.SEND, _cut(Ending.FIN), _CUT, upstream_only=True, streams_only=True),
    "stream_reset": Kind(Stage.SEND, _cut(Ending.RESET), _CUT, upstream_only=True, streams_only=True),
    "stall": Kind(
        Stage.SEND,
        _cut(Ending.SILENCE),
        {"frames": _FRAMES},
        upstream_only=True,
        streams_only=True,
    ),
    "short": Kind(Stage.SEND, _short, {"missing_bytes": Parameter(read.count, 100)}, upstream_only=True),
    "drip": Kind(
        Stage.SEND,
        _drip,
        {"pause_ms": Parameter(read.milliseconds, 1000.0), "body": Parameter(read.content, None)},
    ),
    "no_keepalive_notice": Kind(
        Stage.AFTER,
        lambda answer, after_ms: replace(answer, leave_after_s=after_ms / 1000),
        {"after_ms": Parameter(read.milliseconds, 0.0)},
    ),
}
