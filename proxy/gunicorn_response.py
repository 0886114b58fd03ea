"""gunicorn's response with its head in the same write as the first bytes of the body.

gunicorn writes them one after the other, which costs every answer a system call and a wake-up of the caller more.
"""

import time
from functools import lru_cache
from typing import Any

from gunicorn.http import wsgi
from gunicorn.http.body import ChunkedReader, LengthReader
from gunicorn.util import http_date

from proxy.caller_source import waits_are_limited
from proxy.gunicorn_body import ask_when_read
from proxy.socket_io import send_all

# Of a body that the app did not read: with more, or with nobody knows how much, the connection ends with the answer.
LEFT_MOST_BYTES = 64 * 1024
_JOINED_MOST_BYTES = 64 * 1024  # a longer body goes by itself: a second call costs less than a copy

_date_of = lru_cache(maxsize=1)(http_date)  # of a second


class JoinedResponse(wsgi.Response):  # type: ignore[misc]  # gunicorn has no types
    headers_sent: bool
    _head = b""  # not written yet

    def __init__(self, req: Any, sock: Any, cfg: Any) -> None:
        super().__init__(req, sock, cfg)
        if req._expected_100_continue:
            req._expected_100_continue = False  # gunicorn would send it now
            ask_when_read(req.body, sock)

    def should_close(self) -> bool:
        return super().should_close() or self.req.body.failed or (waits_are_limited.get() and self._leaves_much())

    def _leaves_much(self) -> bool:
        """Whether the app answers before it has read the body, and that body is long or may be."""
        reader = self.req.body.reader
        if isinstance(reader, ChunkedReader):
            return reader.parser is not None
        return isinstance(reader, LengthReader) and reader.length > LEFT_MOST_BYTES

    def default_headers(self) -> list[str]:
        connection = "close" if self.should_close() else "keep-alive"
        major, minor = self.req.version
        lines = [
            f"HTTP/{major}.{minor} {self.status}\r\nServer: {self.version}\r\nDate: {_date_of(int(time.time()))}\r\n",
            f"Connection: {connection}\r\n",
        ]
        return [*lines, "Transfer-Encoding: chunked\r\n"] if self.chunked else lines

    def send_headers(self) -> None:
        if self.headers_sent:
            return
        lines = self.default_headers() + [f"{name}: {value}\r\n" for name, value in self.headers]
        self._head = "".join([*lines, "\r\n"]).encode("latin-1")
        self.headers_sent = True

    def write(self, data: bytes) -> None:
        if self.chunked and data:
            # Nothing else is to be checked: a stream has no length.
            if not self.headers_sent:
                self.send_headers()
            chunk = b"%X\r\n%b\r\n" % (len(data), data)
            send_all(self.sock, self._with_head(chunk) if self._head else chunk)
        else:
            super().write(data)

    def _emit_body(self, data: bytes) -> None:
        send_all(self.sock, self._with_head(data) if self._head else data)

    def close(self) -> None:
        self.send_headers()
        end = b"0\r\n\r\n" if self.chunked else b""
        if self._head or end:
            self._emit_body(end)

    def _with_head(self, data: bytes) -> bytes:
        head, self._head = self._head, b""
        if len(data) <= _JOINED_MOST_BYTES:
            return head + data
        self.sock.sendall(head)
        return data


def install() -> None:
    """For both worker classes: gunicorn makes its responses of this name, and has no setting for it."""
    wsgi.Response = JoinedResponse
