"""The HTTP/1.1 server: gevent's, taught to drop a connection as faults need it. `command` runs it."""

import socket
from collections.abc import Callable
from typing import Any

import gevent
from gevent.pywsgi import WSGIHandler, WSGIServer

from sandbox.app import CONTROL_PREFIX
from sandbox.caller import ENVIRON_KEY, BreakOff, Caller, CallerGone
from sandbox.exchange import HEADERS_KEY, TARGET_KEY
from sandbox.journal import Journal


class SandboxHandler(WSGIHandler):
    """Serves one connection."""

    def __init__(self, sock: socket.socket, address: Any, server: "SandboxServer") -> None:
        super().__init__(sock, address, server)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._caller = Caller(sock)
        self._journal = server.journal
        self._is_counted = False
        self._held: bytearray | None = None

    def handle(self) -> None:
        """Serve request after request, and count the connection while it is open."""
        try:
            super().handle()
        finally:
            self._journal.connections -= self._is_counted

    def get_environ(self) -> dict[str, Any]:
        """Add what the sandbox needs to know of the connection and of the request as it was received."""
        environ: dict[str, Any] = super().get_environ()
        environ[ENVIRON_KEY] = self._caller
        environ[TARGET_KEY] = self.path
        environ[HEADERS_KEY] = list(self.headers.raw_items())
        if not self._is_counted and not (self.path or "").startswith(CONTROL_PREFIX):
            self._is_counted = True
            self._journal.connections += 1
        return environ

    def handle_one_response(self) -> None:
        """Answer; then, where a fault says so, read nothing more and close without having said so."""
        super().handle_one_response()
        if self._caller.leave_after_s is not None:
            gevent.sleep(self._caller.leave_after_s)
            self.close_connection = True

    def process_result(self) -> None:
        """Write each piece at once; an empty one sends the head by itself (the base class skips those)."""
        for data in self.result or ():
            self.write(data)
        if not self.headers_sent:
            self.write(b"")
        if self.response_use_chunked:
            self._sendall(b"0\r\n\r\n")

    def write(self, data: bytes) -> None:
        """Send the head and the first bytes in one segment, as other servers do, and later pieces singly."""
        if self.headers_sent:
            super().write(data)
            return
        self._held = bytearray()
        try:
            super().write(data)
        finally:
            held, self._held = self._held, None
        self._sendall(held)

    def _sendall(self, data: bytes | bytearray) -> None:
        if self._held is None:
            super()._sendall(data)  # type: ignore[misc]  # the stubs leave it out
        else:
            self._held += data

    def handle_error(self, kind: Any, error: Any, traceback: Any) -> None:
        """Close without an answer where the answer itself ends so; anything else is a bug and is printed."""
        if isinstance(error, CallerGone | BreakOff):
            self.close_connection = True
        else:
            super().handle_error(kind, error, traceback)


class SandboxServer(WSGIServer):
    """Listens on one address; OSError from start() when it cannot."""

    def __init__(self, address: tuple[str, int], app: Callable[..., Any], journal: Journal) -> None:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        # The backlog holds a burst of connections from a load test; nothing is logged per request.
        super().__init__(address, app, backlog=1024, handler_class=SandboxHandler, log=None, error_log=None)
        self.family = family
        self.journal = journal

    @property
    def url(self) -> str:
        """The base URL, without a slash at the end; known after start()."""
        host, port = self.socket.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def update_environ(self) -> None:
        """Name the server by its address: the base class asks DNS, which may take seconds offline."""
        self.environ.setdefault("SERVER_NAME", self.address[0])
        super().update_environ()
