"""One caller's end of a connection to the proxy: sends bytes of any kind, reads answers, and leaves in many ways."""

import asyncio
import socket
from collections.abc import Callable
from types import TracebackType

from bench.soaking.answer import Answer
from bench.soaking.record import Record

READ_BYTES = 65536
_NO_LINGER = b"\x01\0\0\0\0\0\0\0"  # SO_LINGER of zero seconds: close() sends RST


class SecretSeen(Exception):
    """An answer held what nobody may see."""


class Caller:
    """Closed at the end of its `async with`, with FIN unless it was reset before."""

    def __init__(self, port: int, secrets: tuple[bytes, ...] = (), *, receive_bytes: int | None = None) -> None:
        """`secrets`: looked for in all that comes. `receive_bytes`: of the kernel's buffer, for who reads little."""
        self._port = port
        self._secrets = secrets
        self._receive_bytes = receive_bytes
        self._sock: socket.socket | None = None

    @property
    def sock(self) -> socket.socket:
        assert self._sock is not None, "not open"
        return self._sock

    async def open(self) -> None:
        """A new connection where there is none that is still good."""
        if self._sock is not None and not self._is_closed(self._sock):
            return
        self.close()
        sock = socket.socket()
        sock.setblocking(False)
        if self._receive_bytes is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_bytes)
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self._port))
        except BaseException:
            sock.close()
            raise
        self._sock = sock

    async def send(self, record: Record, data: bytes) -> None:
        record.port = int(self.sock.getsockname()[1])
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def read(self, answer: Answer, enough: Callable[[], bool] | None = None) -> None:
        """Until the answer is whole, the peer has closed, or there is `enough`.

        Raises OSError where the connection breaks, ValueError for what is not HTTP, SecretSeen.
        """
        while not answer.is_whole and not (enough is not None and enough()):
            data = await self.receive()
            if not data:
                return
            answer.take(data)

    async def receive(self) -> bytes:
        """The next bytes, b"" at the end. Raises OSError and SecretSeen."""
        data = await asyncio.get_running_loop().sock_recv(self.sock, READ_BYTES)
        if any(secret in data for secret in self._secrets):
            raise SecretSeen
        return data

    async def read_to_end(self) -> None:
        """Read and forget until the peer closes."""
        try:
            while await self.receive():
                pass
        except ConnectionError:
            return

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def reset(self) -> None:
        """Close with RST, as a killed process or a broken line does."""
        if self._sock is not None:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            self.close()

    async def __aenter__(self) -> "Caller":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @staticmethod
    def _is_closed(sock: socket.socket) -> bool:
        """Whether the peer of a kept connection has closed it meanwhile; nothing else can come on it."""
        try:
            return not sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
