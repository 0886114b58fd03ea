"""gunicorn's body of a request with what it lacks: an end to chunks before they come, and a question for it in time.

What the app's limit is, it says itself; how long a body may take is left to the workers and to the app.
"""

from typing import Any

from gunicorn.http import message
from gunicorn.http.body import Body, ChunkedReader


class TooMuchAnnounced(Exception):
    """The chunks so far are longer than what the app reads, by their sizes: none of the last one's bytes is needed."""


class LimitedChunks(ChunkedReader):  # type: ignore[misc]  # gunicorn has no types
    most_bytes: int | None = None  # of all chunks
    _announced_bytes = 0

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
