"""The httpx2 transport under UpstreamClient: plain sockets and geventhttpclient's C parser.

httpx2's own transport cannot do what a relay needs: give up waiting for a while without losing the connection (for
keep-alive comments), be broken off by another thread (the caller has gone), and keep one clock for a whole answer.
It works the same under gevent, where `socket` is cooperative, and in threads. HTTP/1.1 only; errors are httpx2's, so
that the SDK maps them as its own.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx2
from geventhttpclient.response import HTTPParseError, HTTPResponse

from proxy.upstreams.connection import Connection, ConnectionPool
from proxy.upstreams.exchange import Exchange
from proxy.upstreams.tls import ClientTls

READ_BYTES = 65536
HEAD_MOST_BYTES = 100 * 1024
ERROR_BODY_MOST_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds: for a connection with TLS, for the answer's head, between two reads, and for the whole answer."""

    connect_s: float = 5.0
    first_byte_s: float = 300.0
    idle_s: float = 120.0
    total_s: float = 1800.0


class SocketTransport(httpx2.BaseTransport):
    """Sends requests to one origin over kept connections."""

    def __init__(self, base_url: httpx2.URL, *, tls: ClientTls | None, timeouts: Timeouts) -> None:
        port = base_url.port or (443 if base_url.scheme == "https" else 80)
        self._timeouts = timeouts
        self._pool = ConnectionPool(base_url.host, port, tls=tls, connect_s=timeouts.connect_s)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send, and return once the answer's head is here; the body is read by whoever holds the response.

        Raises httpx2.TransportError of the kind that fits. A kept connection that turns out to be closed is replaced
        once, if the peer's system took nothing of the request: then nobody can have acted on it.
        """
        exchange: Exchange = request.extensions.get("exchange") or Exchange()
        message = _serialize(request)
        try:
            return self._exchange(self._pool.take(), exchange, request.method, message)
        except _NoAnswer as error:
            if not error.unreceived or exchange.broken_off:
                raise
        return self._exchange(self._pool.open(), exchange, request.method, message)

    def close(self) -> None:
        self._pool.close()

    def _exchange(self, connection: Connection, exchange: Exchange, method: str, message: bytes) -> httpx2.Response:
        acked = connection.bytes_acked() if connection.reused else None
        exchange.attach(connection.shut_down)
        body = AnswerBody(connection, exchange, self._pool, method, self._timeouts)
        try:
            body.send(message)
            body.read_head()
            return body.response()
        except _NoAnswer as error:
            error.unreceived = acked is not None and connection.bytes_acked() == acked
            body.close()
            raise
        except BaseException:
            body.close(keep=False)  # also where a whole answer lies behind a head that is refused
            raise


class _NoAnswer(httpx2.ReadError):
    """The peer closed the connection, in order, before the first byte of an answer."""

    unreceived = False  # the peer's system took no byte of the request either


class _Parser(HTTPResponse):
    """One answer. Bytes after its end are a fault: on a shared connection they would become somebody else's answer."""

    def _on_message_begin(self) -> None:
        if self.message_complete and self.final_status >= 200:
            raise HTTPParseError("bytes after the end of the answer")
        super()._on_message_begin()

    def _on_headers_complete(self) -> int | bool | None:
        self.final_status = self.get_code()
        return super()._on_headers_complete()

    final_status = 0

    def field_bytes(self) -> int:
        return sum(len(name) + len(value) + 4 for name, value in self.items())

    def take_body(self) -> bytes:
        data = bytes(self._body_buffer)
        del self._body_buffer[:]
        return data


class AnswerBody(httpx2.SyncByteStream):
    """An answer on its connection: head first, then the body as it comes. Closing gives the connection back."""

    def __init__(
        self, connection: Connection, exchange: Exchange, pool: ConnectionPool, method: str, timeouts: Timeouts
    ) -> None:
        self._connection = connection
        self._exchange = exchange
        self._pool = pool
        self._parser = _Parser(method)
        self._timeouts = timeouts
        self._ends_at = time.monotonic() + timeouts.total_s
        self._silent_since: float | None = None  # while somebody waits for the body; a slow caller is no stall
        self._left_bytes: int | None = None  # of an error body, which is read whole and so is limited
        self.is_cut = False  # by that limit
        self._closed = False

    def send(self, message: bytes) -> None:
        """Write the request; an early answer (413, say) may come although the peer reads no further."""
        sock = self._connection.sock
        sock.settimeout(self._timeouts.idle_s)
        try:
            sock.sendall(message)
        except TimeoutError as error:
            raise httpx2.WriteTimeout("the upstream reads nothing") from error
        except OSError:
            # Reset while writing: what the peer said before it closed, if anything, decides in read_head().
            return

    def read_head(self) -> None:
        parser, received = self._parser, 0
        deadline = min(time.monotonic() + self._timeouts.first_byte_s, self._ends_at)
        while not (parser.headers_complete and parser.final_status >= 200):
            data = self._receive(deadline, httpx2.ReadTimeout("no answer in time"), nothing_yet=received == 0)
            received += len(data)
            self._feed(data)
            if received > HEAD_MOST_BYTES and (not parser.headers_complete or parser.field_bytes() > HEAD_MOST_BYTES):
                raise httpx2.RemoteProtocolError("the head of the answer is too long")
        self._check_head()
        if parser.final_status >= 400:
            self._left_bytes = ERROR_BODY_MOST_BYTES

    def response(self) -> httpx2.Response:
        fields = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in self._parser.items()]
        return httpx2.Response(self._parser.final_status, headers=fields, stream=self, extensions={"answer_body": self})

    def read(self, wait_s: float | None = None) -> bytes | None:
        """The next bytes of the body; b"" at its end, None when nothing came within wait_s.

        Raises httpx2.ReadTimeout past the idle or total limit; ReadError or RemoteProtocolError for a body cut short.
        """
        parser = self._parser
        while True:
            data = parser.take_body()
            if data:
                return self._within_limit(data)
            if parser.message_complete or self._closed:
                self.close()
                return b""
            if self._silent_since is None:
                self._silent_since = time.monotonic()
            limit = min(self._silent_since + self._timeouts.idle_s, self._ends_at)
            deadline = limit if wait_s is None else min(limit, time.monotonic() + wait_s)
            try:
                received = self._receive(deadline, httpx2.ReadTimeout("the answer stalled"), nothing_yet=False)
            except httpx2.ReadTimeout:
                if deadline < limit:
                    return None
                self.close()
                raise
            except httpx2.TransportError:
                self.close()
                raise
            self._silent_since = None
            self._feed(received)

    def __iter__(self) -> Iterator[bytes]:
        while data := self.read():
            yield data

    def close(self, *, keep: bool = True) -> None:
        """Give the connection back when the answer has ended well, else close it."""
        if self._closed:
            return
        self._closed = True
        self._exchange.detach()
        if not keep or self._parser.should_close() or self._exchange.broken_off:
            self._connection.close()
        else:
            self._pool.give_back(self._connection)

    def _receive(self, deadline: float, late: httpx2.ReadTimeout, *, nothing_yet: bool) -> bytes:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise late
        sock = self._connection.sock
        sock.settimeout(left_s)
        try:
            data = sock.recv(READ_BYTES)
        except TimeoutError:
            raise late from None
        except OSError as error:
            # Never _NoAnswer: a reset may overtake the acknowledgement of a request that the peer has read.
            raise httpx2.ReadError(type(error).__name__) from error
        if not data and self._exchange.broken_off:
            raise httpx2.ReadError("broken off")  # our own end of the connection, and none of the answer
        if not data and nothing_yet:
            raise _NoAnswer("closed without an answer")
        return data

    def _feed(self, data: bytes) -> None:
        """Parse; b"" (the peer closed) ends an answer without a length and is a fault in any other."""
        try:
            self._parser.feed(data)
        except HTTPParseError as error:
            self.close()
            raise httpx2.RemoteProtocolError("the answer breaks HTTP, or was cut short") from error

    def _check_head(self) -> None:
        if self._parser.final_status > 599:
            raise httpx2.RemoteProtocolError("the answer has no status of HTTP")
        given = self._parser.get("content-encoding") or ""
        encodings = given if isinstance(given, list) else [given]
        if any(encoding.strip().lower() not in ("", "identity") for encoding in encodings):
            # Unpacked it could be a thousand times as long; we asked for identity.
            raise httpx2.RemoteProtocolError("the answer is encoded though identity was asked for")

    def _within_limit(self, data: bytes) -> bytes:
        if self._left_bytes is None:
            return data
        kept = data[: self._left_bytes]
        self._left_bytes -= len(kept)
        if len(kept) < len(data):
            self.is_cut = True
            self.close()
        return kept


def _serialize(request: httpx2.Request) -> bytes:
    """The request as bytes. Its fields were made by us or checked by gunicorn, so no line end hides in them."""
    lines = [b"%s %s HTTP/1.1" % (request.method.encode("ascii"), request.url.raw_path)]
    lines += [b"%s: %s" % field for field in request.headers.raw]
    return b"\r\n".join([*lines, b"", request.read()])
