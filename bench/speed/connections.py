"""Connections of a single-threaded server: what was read is kept until it is used, what cannot be sent yet waits.

Plain and TLS sockets alike. Caller: upstream.py.
"""

import select
import socket
import ssl
from collections.abc import Callable

_READ_BYTES = 256 * 1024
_BLOCKED = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_READ = select.EPOLLIN | select.EPOLLRDHUP


class Connection:
    """One peer; `received` is what it has sent and nobody has used, `wanted` how much of it is of use at all."""

    __slots__ = ("_epoll", "_waiting", "closed", "received", "sock", "wanted")

    def __init__(self, sock: socket.socket, epoll: select.epoll) -> None:
        self.sock = sock
        self.closed = False
        self.received = bytearray()
        self.wanted = 1
        self._epoll = epoll
        self._waiting = b""
        epoll.register(sock.fileno(), _READ)

    def write(self, data: bytes) -> bool:
        """Send, or keep what the peer does not take yet; False when it has gone."""
        if self.closed:
            return False
        if self._waiting:
            self._waiting += data
            return True
        try:
            sent = self.sock.send(data)
        except _BLOCKED:
            sent = 0
        except OSError:
            self.close()
            return False
        if sent < len(data):
            self._waiting = data[sent:]
            self._epoll.modify(self.sock.fileno(), _READ | select.EPOLLOUT)
        return True

    def read(self, buffer: memoryview) -> None:
        """Take in whatever is there, by way of the buffer; a peer that has gone is closed."""
        try:
            while count := self.sock.recv_into(buffer):
                self.received += buffer[:count]
                if count < len(buffer) and not isinstance(self.sock, ssl.SSLSocket):
                    return
        except _BLOCKED:
            return
        except OSError:
            pass
        self.close()

    def send_waiting(self) -> None:
        data, self._waiting = self._waiting, b""
        self._epoll.modify(self.sock.fileno(), _READ)
        self.write(data)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._epoll.unregister(self.sock.fileno())
            self.sock.close()


class Server:
    """Listens, reads, and calls `on_data` with each connection that has sent what is wanted."""

    def __init__(self, on_data: Callable[[Connection], None]) -> None:
        self._on_data = on_data
        self._epoll = select.epoll()
        self._buffer = memoryview(bytearray(_READ_BYTES))
        self._listeners: dict[int, tuple[socket.socket, ssl.SSLContext | None]] = {}
        self._connections: dict[int, Connection] = {}

    def listen(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        listener = socket.create_server((host, port), backlog=4096)
        listener.setblocking(False)
        self._listeners[listener.fileno()] = (listener, tls)
        self._epoll.register(listener.fileno(), select.EPOLLIN)

    @property
    def open(self) -> int:
        return sum(not connection.closed for connection in self._connections.values())

    def poll(self, timeout_s: float | None) -> None:
        """Wait at most so long for something to happen, and deal with it."""
        for descriptor, events in self._epoll.poll(timeout_s):
            if descriptor in self._listeners:
                self._accept(*self._listeners[descriptor])
            elif not (connection := self._connections[descriptor]).closed:
                self._serve(connection, events)

    def _serve(self, connection: Connection, events: int) -> None:
        if events & select.EPOLLOUT:
            connection.send_waiting()
        if events & ~select.EPOLLOUT and not connection.closed:
            connection.read(self._buffer)
            if len(connection.received) >= connection.wanted:
                self._on_data(connection)

    def _accept(self, listener: socket.socket, tls: ssl.SSLContext | None) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls is not None:
                sock = tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
            self._connections[sock.fileno()] = Connection(sock, self._epoll)
