"""gunicorn's response with its head in the same write as the first bytes of the body.

gunicorn writes them one after the other, which costs every answer a system call and a wake-up of the caller more.
"""

import time

from gunicorn.http import wsgi
from gunicorn.util import http_date

_JOINED_MOST_BYTES = 64 * 1024  # a longer body goes by itself: a second call costs less than a copy


class _Clock:
    """The `Date` field's value, made once a second."""

    def __init__(self) -> None:
        self._second, self._text = 0, ""

    def date(self) -> str:
        second = int(time.time())
        if second != self._second:
            self._second, self._text = second, http_date(second)
        return self._text


class JoinedResponse(wsgi.Response):  # type: ignore[misc]  # gunicorn has no types
    _clock = _Clock()
    headers_sent: bool
    _head = b""  # not written yet

    def default_headers(self) -> list[str]:
        connection = "close" if self.should_close() else "keep-alive"
        major, minor = self.req.version
        lines = [
            f"HTTP/{major}.{minor} {self.status}\r\nServer: {self.version}\r\nDate: {self._clock.date()}\r\n",
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
            self._write(b"%X\r\n%b\r\n" % (len(data), data))
        else:
            super().write(data)

    def _emit_body(self, data: bytes) -> None:
        self._write(data)

    def close(self) -> None:
        self.send_headers()
        end = b"0\r\n\r\n" if self.chunked else b""
        if self._head or end:
            self._write(end)

    def _write(self, data: bytes) -> None:
        if self._head:
            data = self._joined(data)
        # gevent's sendall() asks for the size of the socket's buffer each time; nearly always one send() does.
        sent = self.sock.send(data)
        if sent < len(data):
            self.sock.sendall(memoryview(data)[sent:])

    def _joined(self, data: bytes) -> bytes:
        head, self._head = self._head, b""
        if len(data) <= _JOINED_MOST_BYTES:
            return head + data
        self.sock.sendall(head)
        return data


def install() -> None:
    """For both worker classes: gunicorn makes its responses of this name, and has no setting for it."""
    wsgi.Response = JoinedResponse
