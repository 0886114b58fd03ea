"""The httpx2 transport under UpstreamClient: plain sockets and geventhttpclient's C parser.

httpx2's own transport cannot do what a relay needs: give up waiting for a while without losing the connection (for
keep-alive comments), be broken off by another thread (the caller has gone), and keep one clock for a whole answer.
It works the same under gevent, where `socket` is cooperative, and in threads. HTTP/1.1 only; errors are httpx2's, so
that the SDK maps them as its own.
"""

import httpx2

from proxy.upstreams.answer_body import AnswerBody, NoAnswer, Timeouts
from proxy.upstreams.connection import Connection, ConnectionPool
from proxy.upstreams.content import Content
from proxy.upstreams.exchange import Exchange
from proxy.upstreams.tls import ClientTls
from proxy.upstreams.tunnel import HttpProxy


class SocketTransport(httpx2.BaseTransport):
    """Sends requests to one origin over kept connections."""

    def __init__(
        self,
        base_url: httpx2.URL,
        *,
        tls: ClientTls | None,
        timeouts: Timeouts,
        http_proxy: HttpProxy | None = None,
        idle_most: int = 256,
    ) -> None:
        port = base_url.port or (443 if base_url.scheme == "https" else 80)
        self._timeouts = timeouts
        self._pool = ConnectionPool(
            base_url.host, port, tls=tls, connect_s=timeouts.connect_s, http_proxy=http_proxy, idle_most=idle_most
        )

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """As send(), for whoever has a request of httpx2's and no bytes yet."""
        exchange = request.extensions.get("exchange") or Exchange()
        return self.send(request.method, _head_of(request), request.read(), exchange).response(request)

    def send(self, method: str, head: bytes, content: Content, exchange: Exchange) -> AnswerBody:
        """Send a request with a ready head, and return once the answer's head is here; the caller reads the body.

        Raises httpx2.TransportError of the kind that fits. A kept connection that turns out to be closed is replaced
        once, if the peer's system took nothing of the request: then nobody can have acted on it.
        """
        try:
            return self._exchange(self._pool.take(), exchange, method, head, content)
        except NoAnswer as error:
            if not error.unreceived or exchange.broken_off:
                raise
        return self._exchange(self._pool.open(), exchange, method, head, content)

    def close(self) -> None:
        self._pool.close()

    def _exchange(
        self, connection: Connection, exchange: Exchange, method: str, head: bytes, content: Content
    ) -> AnswerBody:
        acked = connection.bytes_to_ack() if connection.reused else None
        exchange.attach(connection.shut_down)
        body = AnswerBody(connection, exchange, self._pool, method, self._timeouts)
        try:
            body.send(head, content)
            body.read_head()
            return body
        except NoAnswer as error:
            error.unreceived = acked is not None and connection.bytes_acked() == acked
            body.close()
            raise
        except BaseException:
            body.close(keep=False)  # also where a whole answer lies behind a head that is refused
            raise


def _head_of(request: httpx2.Request) -> bytes:
    lines = [b"%s %s HTTP/1.1" % (request.method.encode("ascii"), request.url.raw_path)]
    lines += [b"%s: %s" % field for field in request.headers.raw]
    return b"\r\n".join([*lines, b"", b""])
