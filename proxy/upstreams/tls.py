"""The one place where TLS contexts are made: for upstreams and for token endpoints."""

import select
import socket
import ssl
import time
from pathlib import Path


def client_context(ca_bundle: Path | None = None, client_cert: Path | None = None) -> ssl.SSLContext:
    """A verifying client context: the system's certificates or `ca_bundle`; `client_cert` holds chain and key.

    Raises OSError or ssl.SSLError where a file is missing or is no PEM.
    """
    context = ssl.create_default_context(cafile=None if ca_bundle is None else str(ca_bundle))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if client_cert is not None:
        context.load_cert_chain(client_cert, password="")  # one with a passphrase would ask for it on the terminal
    return context


class ClientTls:
    """The context for one server, made at the first connection and anew when one of its files has changed.

    A file that is replaced or gone while it runs does not end what works: the context before it stays.
    """

    def __init__(self, ca_bundle: Path | None = None, client_cert: Path | None = None) -> None:
        self._ca_bundle = ca_bundle
        self._client_cert = client_cert
        self._seen: object = None
        self._context: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext:
        """Raises OSError: a file cannot be used, and none could before."""
        try:
            seen = [_version(file) for file in (self._ca_bundle, self._client_cert) if file is not None]
            if self._context is None or seen != self._seen:
                # A new one: OpenSSL would keep the old certificate beside one with another kind of key.
                self._context, self._seen = client_context(self._ca_bundle, self._client_cert), seen
        except OSError:
            if self._context is None:
                raise
        return self._context

    def start(self, sock: socket.socket, server_name: str, deadline: float) -> ssl.SSLSocket:
        """The socket under TLS, by the deadline of the monotonic clock; on an error it is closed.

        Raises OSError, of which TimeoutError by the deadline: a time-out of the socket's own would be for each of its
        waits under gevent, and a peer that drips bytes would never end them.
        """
        tls = self.context().wrap_socket(sock, server_hostname=server_name, do_handshake_on_connect=False)
        try:
            tls.settimeout(0.0)
            while (awaited := _step(tls)) is not None:
                poll = select.poll()
                poll.register(tls, awaited)
                left_s = deadline - time.monotonic()
                if left_s <= 0 or not poll.poll(1000 * left_s):
                    raise TimeoutError
            return tls
        except BaseException:
            tls.close()
            raise


def _step(tls: ssl.SSLSocket) -> int | None:
    """Go on with the handshake: what must be waited for, or None when it is over."""
    try:
        tls.do_handshake()
        return None
    except ssl.SSLWantReadError:
        return select.POLLIN
    except ssl.SSLWantWriteError:
        return select.POLLOUT


def _version(file: Path) -> tuple[int, ...]:
    status = file.stat()
    return (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
