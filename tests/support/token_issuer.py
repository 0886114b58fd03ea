"""A token endpoint on the loopback that records what came and answers as it is told, with bytes of any kind."""

import json
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeAlias
from urllib.parse import parse_qsl

from tests.support.loopback_server import LoopbackServer

Behaviour: TypeAlias = Callable[[socket.socket], None]


@dataclass(frozen=True)
class Received:
    """One request as it came."""

    method: str
    target: str
    fields: dict[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    client_certificate: bytes | None = field(default=None, repr=False)

    @property
    def form(self) -> dict[str, str]:
        return dict(self.members)

    @property
    def members(self) -> list[tuple[str, str]]:
        """The form as it came, members that are repeated included."""
        return parse_qsl(self.body.decode(), keep_blank_values=True, strict_parsing=True)


def answer_of(body: object, status: int = 200, **fields: str) -> bytes:
    """The bytes of an answer; what is not bytes becomes JSON. `Retry_After="1"` is the field Retry-After."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Status", f"Content-Length: {len(raw)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    return "\r\n".join([*lines, "", ""]).encode() + raw


class Issuer(LoopbackServer):
    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.received: list[Received] = []
        self.ended = threading.Event()
        self._tls = tls
        self._behaviour: Behaviour = lambda peer: peer.sendall(answer_of({"access_token": "token-1"}))
        self._at_connect: Behaviour | None = None
        super().__init__()

    @property
    def connections(self) -> int:
        return len(self._accepted)

    @property
    def url(self) -> str:
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}/token"

    def answer(self, body: object, status: int = 200, **fields: str) -> None:
        self.behave(lambda peer: peer.sendall(answer_of(body, status, **fields)))

    def behave(self, behaviour: Behaviour) -> None:
        """What to do once a request has come; the connection is closed afterwards."""
        self._behaviour = behaviour

    def behave_at_connect(self, behaviour: Behaviour) -> None:
        """What to do with a connection before any byte, TLS included, is read."""
        self._at_connect = behaviour

    def drip(self, peer: socket.socket, piece: bytes = b" ", every_s: float = 0.01) -> None:
        """Send a byte at a time until the peer or the test has had enough."""
        while not self.ended.wait(every_s):
            peer.sendall(piece)

    def close(self) -> None:
        self.ended.set()
        super().close()

    def _serve(self, peer: socket.socket) -> None:
        if self._at_connect is not None:
            self._at_connect(peer)
        elif self._tls is not None:
            with self._tls.wrap_socket(peer, server_side=True) as tls_peer:
                self._answer(tls_peer, tls_peer.getpeercert(binary_form=True))
        else:
            self._answer(peer)

    def _answer(self, peer: socket.socket, client_certificate: bytes | None = None) -> None:
        received = _read_request(peer)
        if received is not None:
            self.received.append(replace(received, client_certificate=client_certificate))
            self._behaviour(peer)


def _read_request(peer: socket.socket) -> Received | None:
    with peer.makefile("rb") as stream:
        line = stream.readline().decode("latin-1")
        if line.count(" ") != 2:
            return None
        method, target, _ = line.split(" ")
        fields: dict[str, str] = {}
        while text := stream.readline().decode("latin-1").rstrip("\r\n"):
            name, _, value = text.partition(":")
            fields[name.lower()] = value.strip()
        return Received(method, target, fields, stream.read(int(fields.get("content-length", "0"))))
