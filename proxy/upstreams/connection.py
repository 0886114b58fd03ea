"""Connections to one upstream: opened in time, directly or in a tunnel, kept while idle, told apart when stale."""

import socket
import ssl
import struct
import threading
import time
from collections import deque
from contextlib import suppress

import httpx2

from proxy.socket_io import send_all, socket_reader
from proxy.upstreams.tls import ClientTls
from proxy.upstreams.tunnel import HttpProxy, open_tunnel, proxy_address

IDLE_MOST_S = 55.0
LOOK_EVERY_S = 5.0  # for idle ones that are too old
_TCPI_BYTES_ACKED = struct.Struct("@Q")
_TCPI_BYTES_ACKED_AT = 120  # offset in Linux's struct tcp_info


class Connection:
    """One TCP or TLS connection, in a tunnel or not; `reused` tells a kept one from a new one."""

    __slots__ = ("_reader", "_sent_bytes", "idle_since", "is_shut_down", "receive", "reused", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.reused = False
        self.is_shut_down = False  # by us: what is read from here on is none of the peer's
        self.idle_since = 0.0
        self._reader = socket_reader(sock)
        self.receive = self._reader.receive
        # Counted for plain TCP, where what is sent is what the peer's kernel takes.
        self._sent_bytes = None if isinstance(sock, ssl.SSLSocket) else self.bytes_acked()

    def send(self, data: bytes) -> None:
        """Send it all. Raises OSError, of which TimeoutError by the socket's own timeout."""
        if self._sent_bytes is not None:
            self._sent_bytes += len(data)
        send_all(self.sock, data)

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

    def bytes_to_ack(self) -> int | None:
        """What bytes_acked() will tell once the peer's kernel has taken all that was sent so far, and nothing more."""
        return self.bytes_acked() if self._sent_bytes is None else self._sent_bytes

    def bytes_acked(self) -> int | None:
        """How many of our bytes the peer's kernel took, or None where the system does not tell.

        In a tunnel the peer is the proxy: what it did not take has gone no further.
        """
        with suppress(OSError, AttributeError, struct.error):
            info = self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
            return int(_TCPI_BYTES_ACKED.unpack_from(info, _TCPI_BYTES_ACKED_AT)[0])
        return None

    def shut_down(self) -> None:
        """Wake whoever reads from or writes to it; closing the descriptor is left to that one."""
        self.is_shut_down = True
        with suppress(OSError):
            if isinstance(self.sock, ssl.SSLSocket):
                # SSLSocket.shutdown() drops its TLS state under the reader's feet; only the TCP part is to end.
                super(ssl.SSLSocket, self.sock).shutdown(socket.SHUT_RDWR)
            else:
                self.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._reader.close()
        with suppress(OSError):
            self.sock.close()


class ConnectionPool:
    """The idle connections to one origin, the one used last first: the others may then grow old and go.

    A thread of its own closes them, however quiet the worker is, from the first one that was given back until close().
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        tls: ClientTls | None,
        connect_s: float,
        http_proxy: HttpProxy | None = None,
        idle_most: int = 256,
    ) -> None:
        """`idle_most`: as many as there may be requests at a time; with less, each peak makes its connections anew."""
        self._host = host
        self._port = port
        self._tls = tls
        self._connect_s = connect_s
        self._http_proxy = http_proxy
        self._idle_most = idle_most
        self._idle: deque[Connection] = deque()  # append and pop are atomic
        self._lent: set[Connection] = set()  # add and discard are, too
        self._sweeper: threading.Thread | None = None
        self._starting = threading.Lock()
        self._is_closed = threading.Event()

    def take(self) -> Connection:
        """A kept connection that is still good, else a new one. Raises as `open` does."""
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread took the last one
                break
            if not connection.is_stale():
                connection.reused = True
                self._lent.add(connection)
                return connection
            connection.close()
        return self.open()

    def open(self) -> Connection:
        """A new connection, within `connect_s` for all addresses, a tunnel and TLS together.

        Raises httpx2.ConnectError, ConnectTimeout, or TunnelError where the proxy opens no tunnel.
        """
        deadline = time.monotonic() + self._connect_s
        try:
            http_proxy = None if self._http_proxy is None else self._http_proxy()
            address = (self._host, self._port) if http_proxy is None else proxy_address(http_proxy)
            try:
                sock = self._connect(address, deadline)
            except ConnectionRefusedError:
                # A service that restarts: nothing was sent, so once more is safe.
                sock = self._connect(address, deadline)
            connection = Connection(self._reach(sock, http_proxy, deadline))
            self._lent.add(connection)
            return connection
        except TimeoutError as error:
            raise httpx2.ConnectTimeout("no connection in time") from error
        except (OSError, ValueError) as error:  # ValueError: no host name, or no URL of a proxy any more
            raise httpx2.ConnectError(type(error).__name__) from error

    def give_back(self, connection: Connection) -> None:
        self._lent.discard(connection)
        if len(self._idle) >= self._idle_most:
            connection.close()
            return
        connection.idle_since = time.monotonic()
        self._idle.append(connection)
        if self._sweeper is None:
            self._start_sweeper()

    def drop(self, connection: Connection) -> None:
        """Close one that was taken or opened, in place of giving it back."""
        self._lent.discard(connection)
        connection.close()

    def close(self) -> None:
        """Close what lies idle, and break off what runs."""
        self._is_closed.set()
        self._idle_most = 0  # for those that are given back later
        while self._idle:
            self._idle.pop().close()
        for connection in list(self._lent):
            connection.shut_down()

    def _start_sweeper(self) -> None:
        with self._starting:
            if self._sweeper is None:
                self._sweeper = threading.Thread(target=self._sweep, name="idle-upstreams", daemon=True)
                self._sweeper.start()

    def _sweep(self) -> None:
        while not self._is_closed.wait(LOOK_EVERY_S):
            self._drop_old(time.monotonic())

    def _drop_old(self, now: float) -> None:
        """Those at the other end, which nobody would take again."""
        with suppress(IndexError):  # none is left
            while now - self._idle[0].idle_since > IDLE_MOST_S:
                self._idle.popleft().close()

    def _connect(self, address: tuple[str, int], deadline: float) -> socket.socket:
        found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)
        last: OSError = OSError("no address")
        for family, kind, protocol, _, resolved in found:
            sock = socket.socket(family, kind, protocol)
            try:
                sock.settimeout(max(0.001, deadline - time.monotonic()))
                sock.connect(resolved)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return sock
            except OSError as error:
                sock.close()
                # That one refuses tells more than that another, of IPv6 where there is none, cannot be reached.
                if not isinstance(last, ConnectionRefusedError) or isinstance(error, TimeoutError):
                    last = error
            except BaseException:
                sock.close()
                raise
        raise last

    def _reach(self, sock: socket.socket, http_proxy: httpx2.Proxy | None, deadline: float) -> socket.socket:
        """The socket on which the upstream hears us: in a tunnel and under TLS where there are such."""
        try:
            if http_proxy is not None:
                open_tunnel(sock, http_proxy, self._host, self._port, deadline)
            if self._tls is None:
                return sock
            return self._tls.start(sock, self._host, deadline)
        except BaseException:
            sock.close()
            raise
