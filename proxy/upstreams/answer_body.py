"""An answer on its connection: the request is sent, the head is read, then the body as it comes.

It keeps the clocks (first byte, idle, total) and the limits of sizes, and gives the connection back or closes it.
"""

import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx2
from geventhttpclient.response import HTTPParseError

from proxy.headers import Fields
from proxy.upstreams.answer_parser import AnswerParser
from proxy.upstreams.connection import Connection, ConnectionPool
from proxy.upstreams.content import Content, StreamedContent
from proxy.upstreams.exchange import Exchange

READ_BYTES = 64 * 1024
PIECE_BYTES = 8 * 1024  # of what goes on as it comes: some copies of it are held while a caller does not read
HEAD_MOST_BYTES = 100 * 1024
ERROR_BODY_MOST_BYTES = 64 * 1024
JOINED_MOST_BYTES = 64 * 1024  # a longer body is sent by itself: a second call costs less than a copy


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds: for a connection with TLS, for the answer's head, between two reads, and for the whole answer."""

    connect_s: float = 5.0
    first_byte_s: float = 300.0
    idle_s: float = 120.0
    total_s: float = 1800.0


class NoAnswer(httpx2.ReadError):
    """The peer closed the connection, in order, before the first byte of an answer."""

    unreceived = False  # the peer's system took no byte of the request either


class AnswerBody(httpx2.SyncByteStream):
    """An answer on its connection: head first, then the body as it comes. Closing gives the connection back."""

    __slots__ = (
        *("_closed", "_connection", "_ends_at", "_exchange", "_head_bytes", "_is_sent", "_left_bytes", "_parser"),
        *("_pool", "_silent_since", "_timeouts", "is_cut"),
    )

    def __init__(
        self, connection: Connection, exchange: Exchange, pool: ConnectionPool, method: str, timeouts: Timeouts
    ) -> None:
        self._connection = connection
        self._exchange = exchange
        self._pool = pool
        self._parser = AnswerParser(method)
        self._timeouts = timeouts
        self._ends_at = time.monotonic() + timeouts.total_s
        self._silent_since: float | None = None  # while somebody waits for the body; a slow caller is no stall
        self._head_bytes = 0  # read before the head was whole, what lay behind it among them
        self._is_sent = True  # nothing is left of a request in pieces
        self._left_bytes: int | None = None  # of an error body, which is read whole and so is limited
        self.is_cut = False  # by that limit, or not read at all
        self._closed = False

    @property
    def status(self) -> int:
        return self._parser.status

    @property
    def fields(self) -> Fields:
        return self._parser.fields

    def send(self, head: bytes, content: Content) -> None:
        """Write the request; a peer that answers early (413, say) and closes may still be heard."""
        connection = self._connection
        connection.sock.settimeout(self._timeouts.idle_s)
        try:
            if not isinstance(content, bytes):
                self._send_pieces(head, content)
            elif len(content) <= JOINED_MOST_BYTES:
                connection.send(head + content)
            else:
                connection.send(head)
                connection.send(content)
        except TimeoutError as error:
            raise httpx2.WriteTimeout("the upstream reads nothing") from error
        except OSError:
            # Reset while writing: what the peer said before it closed, if anything, decides in read_head().
            return

    def _send_pieces(self, head: bytes, content: StreamedContent) -> None:
        """As they come, until the peer says that it wants no more. Raises what the pieces raise."""
        connection, is_chunked = self._connection, content.length is None
        self._is_sent = False
        connection.send(head)
        for piece in content.pieces():
            if piece:
                connection.send(b"%x\r\n%b\r\n" % (len(piece), piece) if is_chunked else piece)
            if self._is_refused():
                return
            if time.monotonic() > self._ends_at:
                raise TimeoutError
        if is_chunked:
            connection.send(b"0\r\n\r\n")
        self._is_sent = True

    def _is_refused(self) -> bool:
        """Whether the peer has answered with an error by now, or has closed. A good answer is read when all is sent."""
        sock, parser = self._connection.sock, self._parser
        if parser.head_is_complete:
            return False
        sock.settimeout(0.0)
        try:
            data = sock.recv(READ_BYTES)
            if data:
                self._head_bytes += len(data)
                parser.feed(data)
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        except (OSError, HTTPParseError) as error:
            raise _translate(error) from error
        finally:
            sock.settimeout(self._timeouts.idle_s)
        if self._head_bytes > HEAD_MOST_BYTES:
            self._check_head_length()
        return not data or (parser.head_is_complete and parser.status >= 300)

    def read_head(self) -> None:
        parser = self._parser
        deadline = min(time.monotonic() + self._timeouts.first_byte_s, self._ends_at)
        while not parser.head_is_complete:
            try:
                data = self._receive(deadline - time.monotonic())
                if not data and self._head_bytes == 0:
                    raise NoAnswer("closed without an answer")
                self._head_bytes += len(data)
                parser.feed(data)
            except TimeoutError:
                raise httpx2.ReadTimeout("no answer in time") from None
            except (OSError, HTTPParseError) as error:
                raise _translate(error) from error
            if self._head_bytes > HEAD_MOST_BYTES:
                self._check_head_length()
        self._check_head()
        if parser.status >= 400:
            self._left_bytes = ERROR_BODY_MOST_BYTES

    def response(self, request: httpx2.Request, *, with_fields: bool = True) -> httpx2.Response:
        """The answer as httpx2's, which takes longer to read the fields than the proxy to use them."""
        fields = None
        if with_fields:
            fields = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in self.fields]
        extensions = {"answer_body": self}
        return httpx2.Response(self.status, headers=fields, stream=self, request=request, extensions=extensions)

    def read(self, wait_s: float | None = None, at_least: int = 1) -> bytes | None:
        """The next bytes of the body; b"" at its end, None when nothing came within wait_s.

        `at_least` so many, or all that is left: a long body is then put together once.

        Raises httpx2.ReadTimeout past the idle or total limit; ReadError or RemoteProtocolError for a body cut short.
        """
        parser = self._parser
        while parser.body_bytes < at_least:
            if parser.is_complete or self._closed:
                if parser.body_bytes:
                    break
                self.close()
                return b""
            now = time.monotonic()
            if self._silent_since is None:
                self._silent_since = now
            left_s = min(self._silent_since + self._timeouts.idle_s, self._ends_at) - now
            timeout_s = left_s if wait_s is None else min(wait_s, left_s)
            try:
                data = self._receive(timeout_s, PIECE_BYTES if at_least == 1 else READ_BYTES)
                parser.feed(data)
            except TimeoutError:
                if timeout_s < left_s:
                    return None
                self.close()
                raise httpx2.ReadTimeout("the answer stalled") from None
            except (OSError, HTTPParseError) as error:
                self.close()
                raise _translate(error) from error
            self._silent_since = None
        data = parser.take_body()
        return data if self._left_bytes is None else self._within_limit(data, self._left_bytes)

    def __iter__(self) -> Iterator[bytes]:
        while data := self.read():
            yield data

    def close(self, *, keep: bool = True) -> None:
        """Give the connection back when the answer has ended well, else close it."""
        if self._closed:
            return
        self._closed = True
        self._exchange.detach()
        if keep and self._is_sent and self._parser.can_be_followed() and not self._exchange.broken_off:
            self._pool.give_back(self._connection)
        else:
            self._pool.drop(self._connection)

    def _receive(self, timeout_s: float, most: int = READ_BYTES) -> bytes:
        """The next bytes; b"" (the peer closed) ends an answer without a length, and breaks any other."""
        if timeout_s <= 0:
            raise TimeoutError
        data = self._connection.receive(most, timeout_s)
        if not data and self._connection.is_shut_down:
            raise ConnectionAbortedError  # our own end of the connection, and none of the answer
        return data

    def _check_head_length(self) -> None:
        if not self._parser.head_is_complete or self._parser.field_bytes() > HEAD_MOST_BYTES:
            raise httpx2.RemoteProtocolError("the head of the answer is too long")

    def _check_head(self) -> None:
        for name, value in self._parser.fields:
            name = name.lower()
            if name == "content-encoding" and value.strip().lower() not in ("", "identity"):
                # Unpacked it could be a thousand times as long; we asked for identity.
                self._refuse_body("the answer is encoded though identity was asked for")
            if name == "transfer-encoding" and value.strip().lower() not in ("chunked", "identity"):
                self._refuse_body("the answer has another transfer coding than chunked")

    def _refuse_body(self, reason: str) -> None:
        """Of an error the status counts without its body, not least where it is about our token."""
        if self._parser.status < 400:
            raise httpx2.RemoteProtocolError(reason)
        self.is_cut = True
        self._parser.take_body()
        self.close(keep=False)

    def _within_limit(self, data: bytes, left_bytes: int) -> bytes:
        kept = data[:left_bytes]
        self._left_bytes = left_bytes - len(kept)
        if len(kept) < len(data):
            self.is_cut = True
            self.close()
        return kept


def _translate(error: OSError | HTTPParseError) -> httpx2.TransportError:
    if isinstance(error, HTTPParseError):
        return httpx2.RemoteProtocolError("the answer breaks HTTP, or was cut short")
    # Never NoAnswer: a reset may overtake the acknowledgement of a request that the peer has read.
    return httpx2.ReadError(type(error).__name__)
