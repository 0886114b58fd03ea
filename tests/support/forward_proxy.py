"""A forward proxy on loopback, as companies have them before the internet: tunnels by CONNECT, and for plain HTTP
requests in absolute form. It records what it saw, may want credentials, and misbehaves as a test says."""

import base64
import select
import socket
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import urlsplit

from tests.support.loopback_server import LIMIT_S, LoopbackServer

ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"

# What is done with a connection whose request has been read; it is closed afterwards.
Act = Callable[[socket.socket], None]


class ForwardProxy(LoopbackServer):
    """`heads`: of the requests made to the proxy itself. `passed`: what clients sent through it, as it crossed."""

    def __init__(self) -> None:
        self._clear()
        super().__init__()

    def url(self, userinfo: str = "") -> str:
        return f"http://{userinfo}{'@' if userinfo else ''}127.0.0.1:{self.port}"

    @property
    def targets(self) -> list[str]:
        """Method and target of each request, in turn."""
        return [" ".join(head.split(" ")[:2]) for head in self.heads]

    def demand(self, credentials: str) -> None:
        """Answer 407 to whoever does not send this `user:password`."""
        self._demanded = "Basic " + base64.b64encode(credentials.encode()).decode()

    def misbehave(self, act: Act | None) -> None:
        """Do this instead of letting requests through; None: be good again."""
        self._act = act

    def reset(self) -> None:
        """Close what is open, forget what was seen, and be good again."""
        self.close_connections()
        self._clear()

    def _clear(self) -> None:
        self.heads: list[str] = []
        self.passed = b""
        self._demanded: str | None = None
        self._act: Act | None = None

    def _serve(self, client: socket.socket) -> None:
        head, rest = _receive_head(client)
        with self._changed:
            self.heads.append(head)
        if self._act is not None:
            self._act(client)
        elif self._demanded is not None and _field(head, "Proxy-Authorization") != self._demanded:
            client.sendall(b'HTTP/1.1 407 Say who\r\nProxy-Authenticate: Basic realm="a"\r\n\r\n')
        else:
            self._let_through(client, head, rest)

    def _let_through(self, client: socket.socket, head: str, rest: bytes) -> None:
        method, target, _ = head.split(" ", 2)
        parts = urlsplit(f"//{target}" if method == "CONNECT" else target)
        try:
            server = socket.create_connection((parts.hostname or "", parts.port or 80), timeout=LIMIT_S)
        except OSError:
            client.sendall(b"HTTP/1.1 502 No way\r\n\r\n")
            return
        with server:
            if method == "CONNECT":
                client.sendall(ESTABLISHED)
            else:
                rest = _origin_form(head, parts.path) + rest
            self._pass_on(rest, server)
            while self._exchange(client, server):
                pass

    def _exchange(self, client: socket.socket, server: socket.socket) -> bool:
        """Pass what comes from either side to the other; False when one has ended."""
        ready = select.select([client, server], [], [], LIMIT_S)[0]
        for source in ready:
            data = source.recv(65536)
            if not data:
                return False
            if source is client:
                self._pass_on(data, server)
            else:
                client.sendall(data)
        return bool(ready)

    def _pass_on(self, data: bytes, server: socket.socket) -> None:
        with self._changed:
            self.passed += data
        server.sendall(data)


def saying(answer: bytes) -> Act:
    """Says this, and closes."""
    return lambda client: client.sendall(answer)


def silent(client: socket.socket) -> None:
    """Says nothing until the client goes."""
    client.recv(1)


def dripping(client: socket.socket) -> None:
    """Lets a head without end come byte by byte, for as long as LIMIT_S."""
    client.settimeout(0.05)
    client.sendall(b"HTTP/1.1 200 OK\r\nX-Drip: ")
    for _ in range(int(LIMIT_S / 0.05)):
        client.sendall(b"x")
        with suppress(TimeoutError):
            client.recv(1)  # the pause; the client sends nothing meanwhile, and its end breaks the next write
            return


def endless(client: socket.socket) -> None:
    """Sends a head without end as fast as it is taken."""
    client.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        client.sendall(b"X-Filler: x\r\n" * 100)


def _receive_head(client: socket.socket) -> tuple[str, bytes]:
    received = b""
    while b"\r\n\r\n" not in received:
        data = client.recv(65536)
        if not data:
            raise ConnectionError
        received += data
    head, _, rest = received.partition(b"\r\n\r\n")
    return head.decode("latin-1"), rest


def _field(head: str, name: str) -> str | None:
    fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:])
    return fields.get(name)


def _origin_form(head: str, path: str) -> bytes:
    """The request as the server gets it: without what was for the proxy, and one to a connection."""
    first, *lines = head.split("\r\n")
    kept = [line for line in lines if not line.lower().startswith(("proxy-", "connection:"))]
    return "\r\n".join([f"{first.split(' ')[0]} {path} HTTP/1.1", *kept, "Connection: close", "", ""]).encode("latin-1")
