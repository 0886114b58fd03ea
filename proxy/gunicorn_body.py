"""gunicorn's body of a request with what it lacks: an end to chunks before they come, and a question for it in time.

What the app's limits are, of size and of time, it says itself; the worker has its own for the time of a whole body.
"""

import re
import select
import ssl
import time
from collections.abc import Iterator
from typing import Any

from gunicorn.http import message
from gunicorn.http.body import Body, ChunkedReader, LengthReader
from gunicorn.http.errors import ChunkMissingTerminator, NoMoreData

from proxy.caller_source import CallerSource

# What may stand behind a chunk and tells nothing yet: with an extension behind the size, or a fault, it is looked into.
_NEXT_SIZE_BEGUN = re.compile(rb"\r?|\r\n[0-9A-Fa-f]{0,16}\r?|\r\n[0-9A-Fa-f]{1,16}\r\n")


class TooMuchAnnounced(Exception):
    """The chunks so far are longer than what the app reads, by their sizes: none of the last one's bytes is needed."""


class LimitedChunks(ChunkedReader):  # type: ignore[misc]  # gunicorn has no types
    most_bytes: int | None = None  # of all chunks
    left_bytes = 0  # of the chunk that is being read
    parser: Any  # gunicorn's name for what parse_chunked() makes; None at the end
    _announced_bytes = 0

    def __init__(self, req: Any, unreader: Any) -> None:
        super().__init__(req, unreader)
        self.unreader = unreader

    def parse_chunk_size(self, unreader: Any, data: bytes | None = None) -> tuple[int, bytes | None]:
        """The next chunk's size, 0 for the last, and what came behind it. Raises TooMuchAnnounced."""
        size, rest = super().parse_chunk_size(unreader, data)
        self._announced_bytes += size
        if self.most_bytes is not None and self._announced_bytes > self.most_bytes:
            raise TooMuchAnnounced
        return size, rest

    def parse_chunked(self, unreader: Any) -> Iterator[bytes]:
        """As gunicorn's, but that what came behind a chunk is left in the unreader, where holds() finds it."""
        rest: Any  # no bytes behind the last chunk alone
        self.left_bytes, rest = self.parse_chunk_size(unreader)
        while self.left_bytes:
            while self.left_bytes:
                data = rest or unreader.read(None, read_ahead=self.left_bytes)
                if not data:
                    raise NoMoreData
                piece, rest = data[: self.left_bytes], data[self.left_bytes :]
                self.left_bytes -= len(piece)
                if rest:
                    unreader.unread(rest)
                yield piece
                rest = unreader.take_buffered()
            while len(rest) < 2 and (data := unreader.read()):
                rest += data
            if not rest.startswith(b"\r\n"):
                raise ChunkMissingTerminator(rest[:2])
            self.left_bytes, rest = self.parse_chunk_size(unreader, rest[2:])

    def holds(self, size: int) -> bool:
        """Whether a read of so many bytes would not wait. Raises what it would raise."""
        while self.parser and self.buf.tell() < size:
            held = self.unreader.buf.getvalue()
            if not held if self.left_bytes else _NEXT_SIZE_BEGUN.fullmatch(held):
                return False
            try:
                self.buf.write(next(self.parser))
            except StopIteration:
                self.parser = None
        return True


def limit_chunks(stream: Any, most_bytes: int) -> None:
    """Let reading `wsgi.input` raise TooMuchAnnounced. To be called before it is read; no matter for others' bodies."""
    reader = getattr(stream, "reader", None)
    if isinstance(reader, LimitedChunks):
        reader.most_bytes = most_bytes


def read_some(stream: Any, at_least: int) -> bytes:
    """The next bytes of `wsgi.input`, `at_least` so many and all that have come with them; fewer at the end alone.

    gunicorn's own read() waits for all that it is asked for, and that is never less than 1 KiB.
    """
    reader = getattr(stream, "reader", None)
    if reader is None:  # another server's
        data: bytes = stream.read(at_least)
        return data
    try:
        data = reader.read(at_least)
        # What the reader has taken from the connection by now; behind a body with a length may be a next request.
        is_chunked = isinstance(reader, ChunkedReader)
        come = reader.buf.tell() if is_chunked else min(reader.length, reader.unreader.buf.tell())
        return data + reader.read(come) if come else data
    except Exception:
        stream.failed = True  # as Body says it
        raise


def has_come(stream: Any, sock: Any, at_least: int, within_s: float) -> bool:
    """Whether read_some() would not wait, by then, or nobody can tell: TLS holds bytes that poll() misses."""
    reader = getattr(stream, "reader", None)
    if sock is None or isinstance(sock, ssl.SSLSocket) or not isinstance(reader, LengthReader | LimitedChunks):
        return True
    until = time.monotonic() + within_s
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    try:
        while not _holds(reader, at_least):
            if not poll.poll(1000 * max(0.0, until - time.monotonic())):
                return False
            if not _take(reader):
                return True  # cut short, as the read will find
    except Exception:
        stream.failed = True  # as Body says it
        raise
    return True


def _holds(reader: LengthReader | LimitedChunks, size: int) -> bool:
    if isinstance(reader, LimitedChunks):
        return reader.holds(size)
    return bool(reader.unreader.buf.tell() >= min(size, reader.length))


def _take(reader: LengthReader | LimitedChunks) -> bool:
    """Whether the connection had something more; it is held for the next read."""
    held = reader.unreader.buf
    wanted = reader.left_bytes if isinstance(reader, LimitedChunks) else reader.length - held.tell()
    data = reader.unreader.chunk(wanted)
    held.write(data)
    return bool(data)


def limit_wait(stream: Any, within_s: float) -> None:
    """Let reading `wsgi.input` take so long from now on, where the worker has a limit for all of a body."""
    source = getattr(getattr(getattr(stream, "reader", None), "unreader", None), "sock", None)
    if isinstance(source, CallerSource):
        source.expect_body(within_s)


def ask_when_read(body: Body, sock: Any) -> None:
    """Send `100 Continue` when the app begins to read, and not where it refuses (RFC 9110 §10.1.1)."""
    reader = body.reader

    def ask_and_read(size: int) -> bytes:
        del reader.read
        sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body.failed = False
        data: bytes = reader.read(size)
        return data

    reader.read = ask_and_read
    body.failed = True  # for gunicorn: nobody can tell whether it will come, so nothing can follow it


def install() -> None:
    """For both worker classes: gunicorn makes its readers of this name, and has no setting for it."""
    message.ChunkedReader = LimitedChunks
