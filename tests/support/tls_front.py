"""TLS in front of a plain server on loopback: what comes through is passed on byte for byte."""

import select
import socket
import ssl
import threading
from contextlib import suppress
from types import TracebackType
from urllib.parse import urlsplit

LIMIT_S = 10.0


class TlsFront:
    """Accepts TLS and connects each connection to the server at `url`."""

    def __init__(self, url: str, context: ssl.SSLContext) -> None:
        parts = urlsplit(url)
        self._server = (parts.hostname or "", parts.port or 80)
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.url = f"https://127.0.0.1:{self.port}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def __enter__(self) -> "TlsFront":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(LIMIT_S)
            assert not thread.is_alive()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(sock,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        sock.settimeout(LIMIT_S)
        with (
            suppress(OSError),
            sock,
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
