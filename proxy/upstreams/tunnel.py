"""A tunnel through an HTTP proxy: what is sent to ask for one, and what the proxy may answer (RFC 9110 §9.3.6).

Opening the connection to the proxy, and TLS inside the tunnel, are left to `connection`; the doctor takes the same way.
No text of the proxy's answer is kept but its status, so nothing that it sends back can reach a log.
"""

import re
import socket
import time
from base64 import b64encode
from collections.abc import Callable
from typing import TypeAlias

import httpx2

HEAD_MOST_BYTES = 8 * 1024
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9][0-9][0-9])(?: [^\r\n]*)?(?:\r\n|$)")

# Asked at each new connection: the password may be in a file, and another one there by now.
HttpProxy: TypeAlias = Callable[[], httpx2.Proxy]


class TunnelError(httpx2.ProxyError):
    """There is no tunnel. `status` is that of the proxy's answer; None where it gave none that makes sense."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


def proxy_address(proxy: httpx2.Proxy) -> tuple[str, int]:
    return proxy.url.raw_host.decode("ascii"), proxy.url.port or 80  # httpx2 leaves out the scheme's own port


def open_tunnel(sock: socket.socket, proxy: httpx2.Proxy, host: str, port: int, deadline: float) -> None:
    """Let the proxy join this socket, which is connected to it, to a host and port; `deadline` is monotonic.

    Raises TunnelError, TimeoutError past the deadline, OSError as sockets do, and UnicodeError for a host that is no
    name. The socket is left to the caller in each case.
    """
    sock.settimeout(_left_s(deadline))
    sock.sendall(connect_request(proxy, host, port))
    status, rest = _receive_answer(sock, deadline)
    if not 200 <= status < 300:
        raise TunnelError(f"the proxy answered {status}", status)
    if rest:
        # The upstream speaks second, so these are not its bytes; on they would pass for the start of an answer.
        raise TunnelError("the proxy sent more than the head of its answer")


def connect_request(proxy: httpx2.Proxy, host: str, port: int) -> bytes:
    name = host.encode("idna")
    target = b"%s:%d" % (b"[%s]" % name if b":" in name else name, port)
    lines = [b"CONNECT %s HTTP/1.1" % target, b"Host: %s" % target]
    if proxy.raw_auth is not None:
        lines.append(b"Proxy-Authorization: Basic %s" % b64encode(b":".join(proxy.raw_auth)))  # RFC 7617 §2
    return b"\r\n".join([*lines, b"", b""])


def read_answer(received: bytes) -> tuple[int, bytes] | None:
    """Status of the final answer and what follows its head; None while more must come. Raises TunnelError.

    Content-Length and Transfer-Encoding mean nothing after CONNECT: a tunnel begins right behind the blank line.
    """
    while True:
        head, end, received = received.partition(b"\r\n\r\n")
        if not end:
            return None
        match = _STATUS_LINE.match(head)
        if match is None:
            raise TunnelError("the proxy's answer is no HTTP")
        if int(match[1]) >= 200:  # RFC 9110 §15.2: any number of 1xx may come before
            return int(match[1]), received


def _receive_answer(sock: socket.socket, deadline: float) -> tuple[int, bytes]:
    received = b""
    while (answer := read_answer(received)) is None:
        if len(received) >= HEAD_MOST_BYTES:
            raise TunnelError("the head of the proxy's answer is too long")
        sock.settimeout(_left_s(deadline))
        data = sock.recv(HEAD_MOST_BYTES - len(received))
        if not data:
            raise TunnelError("the proxy closed the connection")
        received += data
    return answer


def _left_s(deadline: float) -> float:
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s
