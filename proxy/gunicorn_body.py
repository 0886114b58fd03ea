"""gunicorn's body of a request with what it lacks: an end to chunks before they come, and a question for it in time.

What the app's limit is, it says itself; how long a body may take is left to the workers and to the app.
"""

import select
import ssl
from typing import Any

from gunicorn.http import message
from gunicorn.http.body import Body, ChunkedReader, LengthReader

from proxy.caller_source import CallerSource


class TooMuchAnnounced(Exception):
    """The chunks so far are longer than what the app reads, by their sizes: none of the last one's bytes is needed."""


class LimitedChunks(ChunkedReader):  # type: ignore[misc]  # gunicorn has no types
    most_bytes: int | None = None  # of all chunks
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


def has_come(stream: Any, sock: Any, within_s: float) -> bool:
    """Whether some of the body is here by then, or nobody can tell: chunks and TLS hold bytes that poll() misses."""
    reader = getattr(stream, "reader", None)
    if sock is None or isinstance(sock, ssl.SSLSocket) or not isinstance(reader, LengthReader):
        return True
    if not reader.length or reader.unreader.buf.tell():
        return True
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(1000 * within_s))


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
