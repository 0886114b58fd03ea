"""An answer as a value: status, header, frames and how it ends.

Views build one, `faults` change it, `exchange` writes it.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

Headers = tuple[tuple[str, str], ...]
# What a frame of a stream is for, so that faults can leave it out unparsed; a piece is not a whole frame.
Part = Literal["content", "finish", "usage", "done", "piece"]


@dataclass(frozen=True, slots=True)
class Frame:
    """Bytes that are written together, after a pause."""

    data: bytes
    pause_s: float = 0.0
    part: Part = "content"


class Ending(Enum):
    """What happens once the frames are out."""

    CLEAN = "the body ends as HTTP says"
    FIN = "the connection is closed"
    RESET = "the connection is reset"
    SILENCE = "nothing, until the caller leaves"


@dataclass(frozen=True)
class Answer:
    """A plain answer has one frame and a Content-Length; a stream is sent in chunks, its head at once."""

    status: int
    headers: Headers
    frames: Iterable[Frame]
    is_stream: bool = False
    is_bare: bool = False  # the frames go to the socket as they are, with no head before them
    delay_s: float = 0.0
    ending: Ending = Ending.CLEAN
    leave_after_s: float | None = None


def encode(value: Any) -> bytes:
    """Write JSON in UTF-8; a lone surrogate becomes its escape, which JSON allows."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")


def bytes_answer(status: int, content_type: str, body: bytes, headers: Headers = ()) -> Answer:
    """Build a plain answer from its body."""
    own = (("Content-Type", content_type), ("Content-Length", str(len(body))))
    return Answer(status, own + headers, (Frame(body),))


def json_answer(value: Any, status: int = 200, headers: Headers = ()) -> Answer:
    """Build a plain answer whose body is JSON."""
    return bytes_answer(status, "application/json", encode(value), headers)


def openai_error(
    status: int,
    message: str,
    kind: str,
    code: str | None = None,
    headers: Headers = (),
) -> Answer:
    """Build an error in OpenAI's shape."""
    error = {"message": message, "type": kind, "param": None, "code": code}
    return json_answer({"error": error}, status, headers)


def stream_answer(frames: Iterable[Frame]) -> Answer:
    """Build an event stream; the frames are made as they are sent."""
    headers = (("Content-Type", "text/event-stream; charset=utf-8"), ("Cache-Control", "no-cache"))
    return Answer(200, headers, frames, is_stream=True)


def data_frame(value: Any, pause_s: float = 0.0, part: Part = "content") -> Frame:
    """Build one event without a name."""
    return Frame(b"data: " + encode(value) + b"\n\n", pause_s, part)


def named_frame(name: str, value: Any, pause_s: float = 0.0, part: Part = "content") -> Frame:
    """Build one event with an `event:` line before its data."""
    return Frame(b"event: " + name.encode() + b"\ndata: " + encode(value) + b"\n\n", pause_s, part)


DONE = Frame(b"data: [DONE]\n\n", part="done")
