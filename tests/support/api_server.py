"""A service on loopback with an HTTP API that is not OpenAI's: what its servers beside share."""

import json
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tests.support.loopback_server import LoopbackServer


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """One request as it came; `fields` by their names in lower case."""

    path: str
    fields: dict[str, str]
    body: dict[str, Any]


class CutOff(Exception):
    """Raised by a server's events: the connection breaks there."""


class ApiServer(LoopbackServer):
    """Answers request after request on each connection; a token in `revoked` gets 401."""

    def __init__(self) -> None:
        self.requests: list[ApiRequest] = []
        self.revoked: set[str] = set()
        self.fault: str | None = None
        self.left = 0  # peers that went away in the midst of a stream
        super().__init__()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def last(self) -> ApiRequest:
        return self.requests[-1]

    def reset(self) -> None:
        with self._changed:
            self.requests.clear()
            self.revoked.clear()
            self.fault, self.left = None, 0

    def wait_until_left(self) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.left > 0, 5), "the peer did not leave"

    def answer(self, request: ApiRequest, sock: socket.socket) -> None:
        raise NotImplementedError

    def token_is_good(self, request: ApiRequest) -> bool:
        return request.fields.get("authorization", "").removeprefix("Bearer ") not in self.revoked

    def send_stream(self, sock: socket.socket, events: Iterable[bytes]) -> None:
        """An event stream in chunks, each event by itself; half of one where it is cut off."""
        sock.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream;charset=UTF-8\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        try:
            for event in events:
                sock.sendall(b"%x\r\n%s\r\n" % (len(event), event))
        except CutOff:
            sock.sendall(b"ff\r\ndata:")
            raise
        sock.sendall(b"0\r\n\r\n")

    def stay_silent(self, sock: socket.socket) -> None:
        """Until the peer goes."""
        sock.recv(1)
        with self._changed:
            self.left += 1
            self._changed.notify_all()
        raise CutOff

    def _serve(self, sock: socket.socket) -> None:
        with sock.makefile("rb") as stream:
            while (line := stream.readline()).count(b" ") == 2:
                fields = {}
                while text := stream.readline().decode("latin-1").strip():
                    name, _, value = text.partition(":")
                    fields[name.lower()] = value.strip()
                body = stream.read(int(fields.get("content-length", "0")))
                request = ApiRequest(line.split()[1].decode(), fields, json.loads(body or b"{}"))
                with self._changed:
                    self.requests.append(request)
                try:
                    self.answer(request, sock)
                except CutOff:
                    return


def send_json(sock: socket.socket, document: Any, status: int = 200, content_type: str = "application/json") -> None:
    body = document if isinstance(document, bytes) else json.dumps(document, ensure_ascii=False).encode()
    head = f"HTTP/1.1 {status} Status\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    sock.sendall(head.encode() + body)
