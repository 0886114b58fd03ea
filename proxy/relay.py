"""Answers on their way to the caller: event streams frame by frame, other bodies whole or piece by piece.

A WSGI iterable sits here between an upstream's answer and gunicorn. Whatever happens, the answer is closed: at its
end, after an error, and when the caller goes away.
"""

import errno
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Literal, Protocol

from proxy import sse
from proxy.errors import CallerGone, ProxyError, UpstreamTimeout
from proxy.usage import read_usage

End = Literal["done", "cut", "caller_gone", "timeout"]

# RAGFlow sorts errors by words: with "server" or "unavailable" in this text it would ask for the whole answer again.
BROKE_OFF = sse.error_frame("The upstream stream broke off.", type_="server_error", code="upstream_error")
HELD_MOST_BYTES = 8 * 1024 * 1024
FIRST_BYTES = 2 * 1024 * 1024  # of most answers all, so that they are put together once
PIECE_BYTES = 64 * 1024
LINGER_S = 0.2


class Body(Protocol):
    """What a relay needs of an upstream's answer."""

    def read(self, wait_s: float | None = None, at_least: int = 1) -> bytes | None: ...
    def finish(self, wait_s: float) -> None: ...
    def close(self) -> None: ...


class StreamRelay:
    """An upstream's event stream as frames that every client reads; `end` tells how it went once it is closed."""

    __slots__ = ("_body", "_frames", "_keepalive_s", "_named", "bytes_sent", "end", "first_byte_at", "frames")

    def __init__(self, body: Body, *, keepalive_s: float | None, named: bool = False) -> None:
        """`named`: its events have names, and its end no [DONE]."""
        self.end: End = "caller_gone"  # until something else is known
        self.bytes_sent = 0
        self.frames = 0  # comments among them
        self.first_byte_at: float | None = None  # time.monotonic()
        self._body = body
        self._keepalive_s = keepalive_s
        self._named = named
        self._frames = sse.FrameReader(named=named)

    def __iter__(self) -> Iterator[bytes]:
        frames, keepalive_s = self._frames, self._keepalive_s
        read, feed, count = self._body.read, frames.feed, self._count
        try:
            while not frames.done:
                data = read(keepalive_s)
                if data == b"":
                    yield from map(count, self._at_clean_end())
                    return
                block = sse.KEEPALIVE if data is None else feed(data)
                if block:
                    yield count(block)
            self.end = "done"
        except CallerGone:
            return
        except (ProxyError, sse.FrameTooLong) as error:
            self.end = "timeout" if isinstance(error, UpstreamTimeout) else "cut"
            self._body.close()
            if not frames.ended_in_error:
                yield count(BROKE_OFF)
        except GeneratorExit:
            raise
        except BaseException:
            # The worker ends, and this greenlet with it: the caller is told as of any other cut.
            self.end = "cut"
            self._body.close()
            yield count(BROKE_OFF)

    def _count(self, block: bytes) -> bytes:
        if self.first_byte_at is None:
            self.first_byte_at = time.monotonic()
        self.bytes_sent += len(block)
        self.frames += block.count(b"\n\n")
        return block

    def usage(self) -> tuple[int, int] | None:
        """Prompt and completion tokens, where the last frames tell."""
        return read_usage(self._frames.tail())

    def close(self) -> None:
        """Called by gunicorn when the last byte is out or the caller is gone."""
        if self.end == "done":
            # The upstream's own end of body comes just behind [DONE]: with it the connection can be kept.
            self._body.finish(LINGER_S)
        else:
            self._body.close()

    def _at_clean_end(self) -> Iterator[bytes]:
        """The body ended without [DONE]: all right after what ends an answer, else it was cut where nobody sees it."""
        block = self._frames.end()
        if block:
            yield block
        if self._frames.done:
            self.end = "done"
        elif self._frames.is_finished:
            self.end = "done"
            if not self._named:
                yield sse.DONE
        else:
            self.end = "cut"
            if not self._frames.ended_in_error:
                yield BROKE_OFF


class PieceRelay:
    """A body too large to be held, or not of text: passed on as it comes, `start` first, which was read before."""

    def __init__(self, body: Body, start: Sequence[bytes] = ()) -> None:
        self.end: End = "caller_gone"
        self.bytes_sent = 0
        self.first_byte_at: float | None = None  # time.monotonic()
        self._body = body
        self.start = deque(start)

    def __iter__(self) -> Iterator[bytes]:
        try:
            for data in self._pieces():
                if self.first_byte_at is None:
                    self.first_byte_at = time.monotonic()
                self.bytes_sent += len(data)
                yield data
            self.end = "done"
        except CallerGone:
            return
        except ProxyError as error:
            # The head is out: only a connection that breaks tells the caller that the body is not whole. gunicorn
            # closes it on this error, and takes it for a caller that went away.
            self.end = "timeout" if isinstance(error, UpstreamTimeout) else "cut"
            raise ConnectionResetError(errno.ECONNRESET, "the upstream's answer was cut short") from error
        except GeneratorExit:
            raise
        except BaseException:
            self.end = "cut"  # by the worker's own end
            raise

    def close(self) -> None:
        self.start.clear()
        self._body.close()

    def _pieces(self) -> Iterator[bytes]:
        while self.start:
            piece = self.start.popleft()
            # In small ones: gunicorn copies what it sends in chunks, and the caller may never read it.
            for at in range(0, len(piece), PIECE_BYTES):
                yield piece[at : at + PIECE_BYTES]
        while data := self._body.read():
            yield data


def read_or_relay(body: Body) -> bytes | PieceRelay:
    """The whole body, so that a cut can still become an error; past 8 MiB a relay for all of it."""
    pieces: list[bytes] = []
    held_bytes = 0
    try:
        while data := body.read(at_least=PIECE_BYTES if pieces else FIRST_BYTES):
            pieces.append(data)
            held_bytes += len(data)
            if held_bytes > HELD_MOST_BYTES:
                return PieceRelay(body, pieces)
    except BaseException:
        body.close()
        raise
    body.close()
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
