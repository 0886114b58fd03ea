"""The text of event streams: whatever an upstream sends becomes frames that every client reads; no I/O.

A frame that leaves is one line `data: ` + text, LF, and a blank line, or a comment line and a blank line. The WHATWG
standard allows much more (CR and CRLF, several `data` lines, `event`, `id`, `retry`, a byte order mark), and each of it
breaks some client. Where the API itself names its events (responses, images, audio) their `event` line stays, and there
is no [DONE] but the upstream's. Frames that already are so are not touched, and most streams consist of nothing else:
they are recognised several at a time by one regular expression, and one alone by less.
"""

import json
import re

DONE = b"data: [DONE]\n\n"
KEEPALIVE = b": keep-alive\n\n"
FRAME_MOST_BYTES = 1024 * 1024
TAIL_BYTES = 4 * 1024
MEDIA_TYPE = "text/event-stream"

_LATER_DONE = b"\n\n" + DONE
_CLEAN = re.compile(rb"(?:(?:data: (?:[^\s\[][^\r\n]*|\[DONE\])|:[^\r\n]*)\n\n)+")
_CLEAN_NAMED = re.compile(rb"(?:(?:(?:event: [^\s][^\r\n]*\n)?data: (?:[^\s\[][^\r\n]*|\[DONE\])|:[^\r\n]*)\n\n)+")
_LINE_END = re.compile(rb"\r\n|\r|\n")
# What says that nothing is missing: of chat and completions, and of the typed events of responses, images and audio.
_FINISHED = re.compile(
    rb'"finish_reason"\s*:\s*"|"type"\s*:\s*"(?:response\.(?:completed|incomplete|failed)'
    rb'|image_(?:generation|edit)\.completed|speech\.audio\.done|transcript\.text\.done)"'
)
# Frames of an answer, as against usage and metrics that may follow its end.
_ANSWER = re.compile(rb'"choices"\s*:\s*\[\s*\{|"type"\s*:\s*"|"error"\s*:')
_COMMENTS = re.compile(rb"(?::[^\n]*\n\n)+")
_ERROR = re.compile(rb'data: \{\s*"error"\s*:')
_NAMED_ERROR = re.compile(rb'(?:event: [^\n]*\n)?data: \{\s*(?:"error"\s*:|"type"\s*:\s*"error")')
_BOM = b"\xef\xbb\xbf"


class FrameTooLong(Exception):
    """A frame of more than 1 MiB: it would have to be held in memory to its end."""


def error_frame(message: str, *, type_: str, code: str) -> bytes:
    """One event that tells of an error, in the shape that the OpenAI SDKs raise from."""
    error = {"error": {"message": message, "type": type_, "param": None, "code": code}}
    return b"data: " + json.dumps(error).encode() + b"\n\n"


class FrameReader:
    """Bytes of an event stream in, clean whole frames out. Time is linear in the bytes however they are cut."""

    __slots__ = ("_at_start", "_clean", "_held", "_lines", "_named", "_recent", "_searched", "done")

    def __init__(self, *, named: bool = False) -> None:
        """`named`: the names of events are the API's own, and stay."""
        self.done = False  # [DONE] went out; whatever follows is dropped
        self._named = named
        self._clean = _CLEAN_NAMED if named else _CLEAN
        self._held = bytearray()  # no whole frame yet
        self._searched = 0  # bytes of it in which no frame's end was found
        self._lines: _LineReader | None = None  # from the first CR on
        self._at_start = True
        self._recent = (b"", b"")  # the ends of the last two blocks with events that went out

    def feed(self, data: bytes) -> bytes:
        """The frames that are whole now, or b"". Raises FrameTooLong."""
        # Most reads are one clean event and nothing else, and three searches for a byte are all it takes to know.
        if (
            data.startswith(b"data: {")
            and data.find(b"\n") == len(data) - 2
            and data.endswith(b"\n\n")
            and b"\r" not in data
            and not (self._held or self._lines or self._at_start or self.done)
            and len(data) <= FRAME_MOST_BYTES
        ):
            self._recent = (self._recent[1], data)
            return data
        if self.done:
            return b""
        if self._at_start:
            data = self._without_bom(data)
        if self._lines is None and b"\r" not in data:
            return self._feed_lf(data)
        if self._lines is None:
            self._lines = _LineReader(self._named)
            data = bytes(self._held) + data
            self._held.clear()
        return self._out(self._lines.feed(data))

    def end(self) -> bytes:
        """The frame that a clean end of the body completes, or b""; call it once, and not after a cut.

        Where the end of the connection is the body's, a cut looks like a clean end: half an event stays here.
        """
        if self.done:
            return b""
        lines = self._lines or _LineReader(self._named)
        frames = lines.feed(bytes(self._held) + b"\n\n").split(b"\n\n")[:-1]
        return self._out(b"".join(frame + b"\n\n" for frame in frames if _is_whole(frame)))

    @property
    def is_finished(self) -> bool:
        """Whether the last frame (a closing usage frame aside) says why the answer ended: nothing is missing then."""
        frame = self._last_frame()
        return bool(_FINISHED.search(frame))

    @property
    def ended_in_error(self) -> bool:
        """Whether the last frame is the upstream's own error event."""
        pattern = _NAMED_ERROR if self._named else _ERROR
        return bool(pattern.match(self._last_frame()))

    def _feed_lf(self, data: bytes) -> bytes:
        if self._held or not data.endswith(b"\n\n"):
            data = self._whole_frames(data)
        if len(data) > FRAME_MOST_BYTES:
            _check_length(max(map(len, data.split(b"\n\n"))))
        if data and not self._clean.fullmatch(data):
            data = _LineReader(self._named).feed(data)
        return self._out(data)

    def _whole_frames(self, data: bytes) -> bytes:
        """What was held and what came now, up to the last frame that is whole."""
        held = self._held
        held += data
        end = held.rfind(b"\n\n", max(0, self._searched - 1))
        block = bytes(held[: end + 2]) if end >= 0 else b""
        del held[: len(block)]
        self._searched = len(held)
        _check_length(len(held))
        return block

    def _out(self, block: bytes) -> bytes:
        if not block:
            return b""
        if DONE in block:
            block = self._up_to_done(block)
        if not block.startswith(b":") or not _COMMENTS.fullmatch(block):
            self._recent = (self._recent[1], block) if len(block) <= TAIL_BYTES else (b"", _last_frames(block))
        return block

    def _up_to_done(self, block: bytes) -> bytes:
        """A line break never stands inside a JSON text, so this finds the frame and no answer that speaks of it."""
        at = 0 if block.startswith(DONE) else block.find(_LATER_DONE) + 2
        self.done = at != 1  # not found; a comment may speak of it
        return block[: at + len(DONE)] if self.done else block

    def tail(self) -> bytes:
        """The last frames that went out: of two reads that brought events, or the last 4 KiB or more of a long one."""
        return b"".join(self._recent)

    def _last_frame(self) -> bytes:
        frames = [frame for frame in self.tail().split(b"\n\n") if frame and not frame.startswith(b":")]
        while len(frames) > 1 and not _ANSWER.search(frames[-1]):
            frames.pop()
        return frames[-1] if frames else b""

    def _without_bom(self, data: bytes) -> bytes:
        start = bytes(self._held) + data
        self._held.clear()
        if len(start) < len(_BOM) and _BOM.startswith(start):
            self._held += start
            return b""
        self._at_start = False
        return start.removeprefix(_BOM)


class _LineReader:
    """The slow way, line by line as the standard says: fields are told apart and events put together anew."""

    def __init__(self, named: bool) -> None:
        self._named = named
        self._name = b""
        self._line = bytearray()  # no line end yet
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._after_cr = False

    def feed(self, data: bytes) -> bytes:
        if self._after_cr and data:
            # CR ended the line before; an LF that comes in the next read belongs to it.
            data = data.removeprefix(b"\n")
            self._after_cr = False
        if data.endswith(b"\r"):
            self._after_cr = True
        *lines, rest = _LINE_END.split(data)
        if lines:
            lines[0] = bytes(self._line) + lines[0]
            self._line.clear()
        self._line += rest
        block = b"".join(map(self._take_line, lines))
        _check_length(len(self._line) + self._data_bytes)
        return block

    def _take_line(self, line: bytes) -> bytes:
        """What a line completes: a comment at once, an event at its blank line."""
        if not line:
            return self._event()
        if line.startswith(b":"):
            return line + b"\n\n"
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
            self._data_bytes += len(value) + 1  # empty lines take memory too
            _check_length(self._data_bytes)
        elif name == b"event" and self._named:
            self._name = value.removeprefix(b" ").strip()
        return b""

    def _event(self) -> bytes:
        # A line break between `data` lines is white space to JSON, and so is the blank that it becomes.
        text = b" ".join(self._data)
        if text.strip() == b"[DONE]":
            text = b"[DONE]"
        name = b"event: " + self._name + b"\n" if self._name else b""
        self._name = b""
        self._data.clear()
        self._data_bytes = 0
        return name + b"data: " + text + b"\n\n" if text.strip() else b""


def _is_whole(frame: bytes) -> bool:
    text = frame[frame.find(b"\n") + 1 :] if frame.startswith(b"event: ") else frame
    text = text.removeprefix(b"data: ")
    if frame.startswith(b":") or text == b"[DONE]":
        return True
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _last_frames(block: bytes) -> bytes:
    """The whole frames that reach into the last 4 KiB."""
    before = block.rfind(b"\n\n", 0, len(block) - TAIL_BYTES)
    return block if before < 0 else block[before + 2 :]


def _check_length(length: int) -> None:
    if length > FRAME_MOST_BYTES:
        raise FrameTooLong
