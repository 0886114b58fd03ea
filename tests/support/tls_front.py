"""TLS in front of a plain server on loopback: what comes through is passed on byte for byte."""

import select
import socket
import ssl
from urllib.parse import urlsplit

from tests.support.loopback_server import LIMIT_S, LoopbackServer


class TlsFront(LoopbackServer):
    """Accepts TLS and connects each connection to the server at `url`."""

    def __init__(self, url: str, context: ssl.SSLContext) -> None:
        parts = urlsplit(url)
        self._server = (parts.hostname or "", parts.port or 80)
        self._context = context
        super().__init__()
        self.url = f"https://127.0.0.1:{self.port}"

    def _serve(self, sock: socket.socket) -> None:
        with (
            self._context.wrap_socket(sock, server_side=True) as client,
            socket.create_connection(self._server, timeout=LIMIT_S) as server,
        ):
            while _pass_on(client, server):
                pass


def _pass_on(client: ssl.SSLSocket, server: socket.socket) -> bool:
    """Pass what comes from either side to the other; False when one has ended. One thread: TLS sockets want that."""
    ready = [client] if client.pending() else select.select([client, server], [], [], LIMIT_S)[0]
    for source in ready:
        data = source.recv(65536)
        if not data:
            return False
        (server if source is client else client).sendall(data)
    return bool(ready)
