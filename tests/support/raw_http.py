"""A caller made of one socket, for what no HTTP client would send or show."""

import json
import re
import socket
import time
from types import TracebackType
from typing import Any


class RawCaller:
    """One connection to the proxy; every read has a limit, so that a test fails and does not hang."""

    def __init__(self, port: int, timeout_s: float = 10.0) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def post(self, path: str, body: bytes | dict[str, Any], *fields: str) -> None:
        """A request with a JSON body and `fields` such as "Authorization: Bearer k"."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = [f"POST {path} HTTP/1.1", "Host: proxy", f"Content-Length: {len(raw)}", *fields]
        self.send("\r\n".join([*lines, "", ""]).encode("latin-1") + raw)

    def read_until(self, mark: bytes, within_s: float = 10.0) -> bytes:
        """What came up to and with a mark; an AssertionError when the peer closes or is silent before it."""
        data, until = b"", time.monotonic() + within_s
        while mark not in data:
            self.sock.settimeout(max(0.01, until - time.monotonic()))
            piece = self.sock.recv(65536)
            assert piece, f"closed before {mark!r}: {data[-500:]!r}"
            data += piece
        return data

    def read_to_end(self, within_s: float = 10.0) -> bytes:
        """All that comes until the peer closes."""
        data, until = b"", time.monotonic() + within_s
        while True:
            self.sock.settimeout(max(0.01, until - time.monotonic()))
            try:
                piece = self.sock.recv(65536)
            except ConnectionResetError:
                return data
            if not piece:
                return data
            data += piece

    def close(self) -> None:
        self.sock.close()

    def reset(self) -> None:
        """Close with RST, as a killed process or a broken line does."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.sock.close()

    def __enter__(self) -> "RawCaller":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def status_of(answer: bytes) -> int:
    match = re.match(rb"HTTP/1\.[01] (\d{3}) ", answer)
    assert match, answer[:200]
    return int(match[1])


def field_of(answer: bytes, name: str) -> str | None:
    head = answer.partition(b"\r\n\r\n")[0].decode("latin-1")
    for line in head.split("\r\n")[1:]:
        field, _, value = line.partition(":")
        if field.lower() == name.lower():
            return value.strip()
    return None


def error_of(answer: bytes) -> dict[str, Any]:
    """The error object of an answer with a Content-Length."""
    body = answer.partition(b"\r\n\r\n")[2]
    return dict(json.loads(body)["error"])
