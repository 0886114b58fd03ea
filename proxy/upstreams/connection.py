"""Connections to one upstream: opened with time-outs, kept while idle, told apart when stale."""

import socket
import ssl
import struct
import time
from collections import deque
from contextlib import suppress

import httpx2

from proxy.upstreams.tls import ClientTls

IDLE_MOST_S = 55.0
_TCPI_BYTES_ACKED = struct.Struct("@Q")
_TCPI_BYTES_ACKED_AT = 120  # offset in Linux's struct tcp_info


class Connection:
    """One TCP or TLS connection; `reused` tells a kept one from a new one."""

    __slots__ = ("idle_since", "reused", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.reused = False
        self.idle_since = 0.0

    def is_stale(self) -> bool:
        """Whether the peer has closed it, or sent what nobody asked for, while it lay idle."""
        if time.monotonic() - self.idle_since > IDLE_MOST_S:
            return True
        try:
            self.sock.settimeout(0.0)
            self.sock.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        except OSError:
            return True
        return True

    def bytes_acked(self) -> int | None:
        """How many of our bytes the peer's kernel took, or None where the system does not tell."""
        with suppress(OSError, AttributeError, struct.error):
            info = self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
            return int(_TCPI_BYTES_ACKED.unpack_from(info, _TCPI_BYTES_ACKED_AT)[0])
        return None

    def shut_down(self) -> None:
        """Wake whoever reads from or writes to it; closing the descriptor is left to that one."""
        with suppress(OSError):
            if isinstance(self.sock, ssl.SSLSocket):
                # SSLSocket.shutdown() drops its TLS state under the reader's feet; only the TCP part is to end.
                super(ssl.SSLSocket, self.sock).shutdown(socket.SHUT_RDWR)
            else:
                self.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with suppress(OSError):
            self.sock.close()


class ConnectionPool:
    """The idle connections to one origin, the one used last first: the others may then grow old and go."""

    def __init__(self, host: str, port: int, *, tls: ClientTls | None, connect_s: float, idle_most: int = 256) -> None:
        self._host = host
        self._port = port
        self._tls = tls
        self._connect_s = connect_s
        self._idle_most = idle_most
        self._idle: deque[Connection] = deque()  # append and pop are atomic

    def take(self) -> Connection:
        """A kept connection that is still good, else a new one. Raises httpx2.ConnectError or ConnectTimeout."""
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread took the last one
                break
            if not connection.is_stale():
                connection.reused = True
                return connection
            connection.close()
        return self.open()

    def open(self) -> Connection:
        """A new connection, within `connect_s` for all addresses and TLS together."""
        deadline = time.monotonic() + self._connect_s
        try:
            try:
                sock = self._connect(deadline)
            except ConnectionRefusedError:
                sock = self._connect(deadline)  # a service that restarts: nothing was sent, so once more is safe
            return Connection(self._start_tls(sock, deadline))
        except TimeoutError as error:
            raise httpx2.ConnectTimeout("no connection in time") from error
        except (OSError, UnicodeError) as error:
            raise httpx2.ConnectError(type(error).__name__) from error

    def give_back(self, connection: Connection) -> None:
        if len(self._idle) >= self._idle_most:
            connection.close()
            return
        connection.idle_since = time.monotonic()
        self._idle.append(connection)

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _connect(self, deadline: float) -> socket.socket:
        addresses = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        last: OSError = OSError("no address")
        for family, kind, protocol, _, address in addresses:
            sock = socket.socket(family, kind, protocol)
            try:
                sock.settimeout(max(0.001, deadline - time.monotonic()))
                sock.connect(address)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return sock
            except OSError as error:
                sock.close()
                last = error
            except BaseException:
                sock.close()
                raise
        raise last

    def _start_tls(self, sock: socket.socket, deadline: float) -> socket.socket:
        if self._tls is None:
            return sock
        try:
            sock.settimeout(max(0.001, deadline - time.monotonic()))
            return self._tls.context().wrap_socket(sock, server_hostname=self._host)
        except BaseException:
            sock.close()
            raise
