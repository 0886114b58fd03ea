"""Bytes of another API's event stream in, OpenAI's frames out, one adapter's ChatStream in between; no I/O."""

import json
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from proxy import sse
from proxy.adapters.base import ApiError, error_object
from proxy.adapters.chat_stream import ChatStream

Document = dict[str, Any]


class EventStream:
    """The events in the bytes of a stream."""

    def __init__(self) -> None:
        self._frames = sse.FrameReader(named=True)
        self.done = False  # by a [DONE] of the upstream's own

    def feed(self, data: bytes) -> Iterator[tuple[str, str]]:
        """Name and data of the events that are whole now. Raises sse.FrameTooLong."""
        return self._events(self._frames.feed(data))

    def end(self) -> Iterator[tuple[str, str]]:
        return self._events(self._frames.end())

    def _events(self, block: bytes) -> Iterator[tuple[str, str]]:
        for frame in block.split(b"\n\n"):
            name, data = "", frame
            if frame.startswith(b"event: "):
                first, _, data = frame.partition(b"\n")
                name = first.removeprefix(b"event: ").decode(errors="replace")
            if data == b"data: [DONE]":
                self.done = True
            elif data.startswith(b"data: "):
                yield name, data.removeprefix(b"data: ").decode(errors="replace")


class StreamConverter:
    """One stream. Raises what the adapter raises, but errors for the caller; sse.FrameTooLong for more than 1 MiB."""

    def __init__(self, stream: ChatStream) -> None:
        self.ended = False  # nothing more goes out
        self._stream = stream
        self._events = EventStream()
        self.fault: Exception | None = None  # found behind frames that went out; the next call raises it
        self._has_finished = False

    def feed(self, data: bytes) -> bytes:
        """The frames of the events that are whole now, or b""."""
        return self._up_to_a_fault(self._frames(self._events.feed(data)))

    def end(self) -> bytes:
        """The last frames, when the body has ended well."""
        return self._up_to_a_fault(self._frames(self._events.end(), at_end=True))

    def _up_to_a_fault(self, frames: Iterator[bytes]) -> bytes:
        if self.fault is not None:
            raise self.fault
        made = []
        try:
            for frame in frames:
                made.append(frame)  # so that those before a fault are there
        except Exception as error:
            if not made:
                raise
            self.fault = error
        return b"".join(made)

    def _frames(self, events: Iterable[tuple[str, str]], *, at_end: bool = False) -> Iterator[bytes]:
        if self.ended:
            return
        try:
            for name, data in events:
                yield from map(self._frame, self._stream.event(name, data))
            if at_end or self._events.done:
                yield from map(self._frame, self._stream.end())
                self.ended = True
                if self._has_finished:
                    yield sse.DONE
        except ApiError as error:
            if not error.is_the_callers:
                raise
            self.ended = True
            yield _frame({"error": error_object(error.status, error.message, code=error.code)})

    def _frame(self, chunk: Document) -> bytes:
        self._has_finished |= any(choice.get("finish_reason") for choice in chunk["choices"])
        return _frame(chunk)


def chunks_in(body: bytes, stream: ChatStream) -> list[Document]:
    """The chunks of a stream that has come whole. Raises ApiError where it ends in one."""
    events = EventStream()
    chunks: list[Document] = []
    for name, data in chain(events.feed(body), events.end()):
        chunks += stream.event(name, data)
    return [*chunks, *stream.end()]


def frames_of(chunks: Iterable[Document]) -> bytes:
    """A whole stream of these chunks."""
    return b"".join(map(_frame, chunks)) + sse.DONE


def _frame(document: Document) -> bytes:
    return b"data: " + to_json(document) + b"\n\n"


def to_json(document: Any) -> bytes:
    """Raises ValueError or TypeError for what JSON has no way to say. Half a surrogate pair becomes a question mark."""
    return json.dumps(document, ensure_ascii=False, allow_nan=False).encode(errors="replace")
