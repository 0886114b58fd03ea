"""A token endpoint on the loopback that records what came and answers as it is told, with bytes of any kind."""

import json
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TypeAlias
from urllib.parse import parse_qsl

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


class Issuer:
    """Accepts until it is closed, one thread per connection."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.received: list[Received] = []
        self.connections = 0
        self.ended = threading.Event()
        self._tls = tls
        self._behaviour: Behaviour = lambda peer: peer.sendall(answer_of({"access_token": "token-1"}))
        self._at_connect: Behaviour | None = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

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
        with suppress(OSError):  # closed already
            self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            thread = threading.Thread(target=self._serve, args=(peer,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, peer: socket.socket) -> None:
        peer.settimeout(10)
        try:
            if self._at_connect is not None:
                self._at_connect(peer)
                return
            if self._tls is not None:
                peer = self._tls.wrap_socket(peer, server_side=True)
            received = _read_request(peer)
            if received is not None:
                der = peer.getpeercert(binary_form=True) if isinstance(peer, ssl.SSLSocket) else None
                self.received.append(replace(received, client_certificate=der))
                self._behaviour(peer)
        except OSError:  # the client broke off, which is what many tests are about
            pass
        finally:
            peer.close()


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
