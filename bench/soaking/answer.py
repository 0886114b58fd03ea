"""One answer as a caller reads it: what it is, whether it is whole, and a hash of what it says. No I/O."""

import json
import re
from contextlib import suppress
from hashlib import sha256

from bench.soaking.record import Outcome, Record
from bench.speed.answer_reader import AnswerReader

KEEPALIVE = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"
FROM_UPSTREAM = "from_upstream"  # the code of errors that the upstream is told to give
_ERROR_EVENT = b'data: {"error"'
_HELD_MOST_BYTES = 4096
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)")
_SHED = ("overloaded", "rate_limit_exceeded")
_OF_UPSTREAM = (FROM_UPSTREAM, "upstream_error", "upstream_unavailable", "upstream_timeout")


class Answer:
    """Fed with what comes on the connection; `head` is empty until it is whole."""

    def __init__(self) -> None:
        self.head = b""
        self.body_bytes = 0
        self.frames = 0
        self._reader = AnswerReader()
        self._hash = sha256()
        self._before = b""  # the head, while it is not whole
        self._most_bytes: int | None = None  # of the body, where its length is told
        self._start = b""  # of the body
        self._is_stream = False
        self._half = b""  # of a stream: no whole frame yet
        self._last = b""
        self._has_error_event = False

    @property
    def status(self) -> int:
        return self._reader.status

    @property
    def is_whole(self) -> bool:
        return self._reader.done

    @property
    def says_close(self) -> bool:
        return b"\r\nconnection: close" in self.head

    def take(self, data: bytes) -> None:
        """Use what was read. Raises ValueError where it is not HTTP."""
        if not self.head:
            self._before += data
            if b"\r\n\r\n" in self._before:
                self.head = self._before.partition(b"\r\n\r\n")[0].lower() + b"\r\n"
                self._is_stream = b"\r\ncontent-type: text/event-stream" in self.head
                length = _LENGTH.search(self.head)
                self._most_bytes = int(length[1]) if length else None
        body = self._reader.feed(data)
        if self._most_bytes is not None:
            body = body[: self._most_bytes - self.body_bytes]  # another answer may lie behind
        if body:
            self._take_body(body)

    def describe(self, record: Record) -> None:
        """Write into the record what has come."""
        record.status, record.body_bytes, record.sha256 = self.status, self.body_bytes, self._hash.hexdigest()
        record.outcome = self._outcome()
        if f"\r\nx-request-id: {record.identity}\r\n".encode() not in self.head and self.is_whole:
            record.fault = "another request's id"
        elif self.is_whole and self._is_stream and not self._ends_well():
            record.fault = "a stream that ends neither with [DONE] nor with one error event"
        elif record.outcome == "refused" and self.status >= 500:
            record.fault = f"an error of our own: {self.status} {self._code()}"

    def _outcome(self) -> Outcome:
        if not self.is_whole:
            return "broken"
        if self.status == 200:
            return "upstream error" if self._has_error_event else "ok"
        code = self._code()
        if code in _SHED:
            return "shed"
        return "upstream error" if code in _OF_UPSTREAM else "refused"

    def _code(self) -> str:
        with suppress(ValueError, KeyError, TypeError):
            return str(json.loads(self._start)["error"]["code"])
        return ""

    def _ends_well(self) -> bool:
        """Whole frames, and one end: [DONE] or the error event."""
        is_done = self._last.endswith(DONE)
        return not self._half and (self._has_error_event or is_done) and not (self._has_error_event and is_done)

    def _take_body(self, body: bytes) -> None:
        self.body_bytes += len(body)
        self._start += body[: _HELD_MOST_BYTES - len(self._start)]
        if not self._is_stream:
            self._hash.update(body)
            return
        held = self._half + body
        end = held.rfind(b"\n\n") + 2
        if end < 2:
            self._half = held
            return
        frames, self._half = held[:end].replace(KEEPALIVE, b""), held[end:]
        self._hash.update(frames)
        self.frames += frames.count(b"\n\n")
        self._has_error_event = self._has_error_event or _ERROR_EVENT in frames
        self._last = frames or self._last
