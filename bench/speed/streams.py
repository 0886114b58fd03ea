"""Streams that are sent at a steady rate: due times are absolute, so a late frame does not delay those behind it.

Time is cut into slots of a millisecond; a slot holds the streams that are due in it. Caller: upstream.py.
"""

import time
import zlib
from collections.abc import Callable

from bench.speed.answers import LAST_CHUNK, STREAM_HEAD, Frames, chunk

Write = Callable[[bytes], bool]
_NS = 1_000_000_000
_SLOT_NS = 1_000_000
_GOLDEN = 0.6180339887498949  # its multiples modulo 1 lie evenly, however many there are


class Stream:
    """One answer that is sent frame by frame; `crc` and `size` are of the data without the chunks' framing."""

    __slots__ = ("_frames", "_left", "_write", "complete", "crc", "due_ns", "identity", "on_end", "period_ns", "size")

    def __init__(
        self, identity: str, frames: Frames, count: int, per_second: float, write: Write, on_end: Callable[[], None]
    ) -> None:
        """`write` sends or keeps what it is given; False: the peer has gone. `on_end` runs after the last frame."""
        self.identity = identity
        self.complete = False
        self.crc = self.size = self.due_ns = 0
        self.period_ns = int(_NS / per_second)
        self.on_end = on_end
        self._frames, self._left, self._write = frames, count, write

    def open(self) -> None:
        """Send the head and the first frame, which has the role."""
        first = self._frames.first
        self._count(first)
        self._write(STREAM_HEAD + chunk(first))

    def send_next(self) -> bool:
        """Send the frame that is due, or the last ones; False when there is nothing left to send."""
        if not self._left:
            self._close()
            return False
        frames = self._frames
        data = b"%b%019d%b" % (frames.head, time.monotonic_ns(), frames.tail)
        self._count(data[frames.skip : -2])
        self._left -= 1
        return self._write(data)

    def _close(self) -> None:
        for frame in self._frames.last:
            self._count(frame)
            self._write(chunk(frame))
        self.complete = self._write(LAST_CHUNK)
        self.on_end()

    def _count(self, data: bytes) -> None:
        self.crc = zlib.crc32(data, self.crc)
        self.size += len(data)


class Schedule:
    """The open streams by the slot in which they are due."""

    def __init__(self) -> None:
        self._slots: dict[int, list[Stream]] = {}
        self._done = time.monotonic_ns() // _SLOT_NS
        self._begun = 0
        self.open = 0
        self.frames = 0
        self.late_ns = 0  # the most that a frame was late by the fault of this process

    def begin(self, stream: Stream) -> None:
        """Send the first frame now, the others at a place of their own within the period."""
        if not self.open:
            self._done = time.monotonic_ns() // _SLOT_NS
        self._begun += 1
        self.open += 1
        stream.due_ns = time.monotonic_ns() + int(stream.period_ns * (self._begun * _GOLDEN % 1.0))
        self._enter(stream)
        stream.open()

    def run(self) -> None:
        """Send whatever is due."""
        now = time.monotonic_ns()
        for slot in range(self._done + 1, now // _SLOT_NS + 1):
            streams = self._slots.pop(slot, None)
            if streams:
                self.late_ns = max(self.late_ns, time.monotonic_ns() - (slot + 1) * _SLOT_NS)
                self._send(streams)
            self._done = slot

    def _send(self, streams: list[Stream]) -> None:
        for stream in streams:
            if stream.send_next():
                self.frames += 1
                stream.due_ns += stream.period_ns
                self._enter(stream)
            else:
                self.open -= 1

    def _enter(self, stream: Stream) -> None:
        slot = max(stream.due_ns // _SLOT_NS, self._done + 1)
        held = self._slots.get(slot)
        if held is None:
            self._slots[slot] = [stream]
        else:
            held.append(stream)
