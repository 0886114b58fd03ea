"""One request to a token endpoint, with a deadline for the whole of it; used by every source that asks over HTTP."""

import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import httpx

from proxy.tokens.schedule import FETCH_DEADLINE_S
from proxy.tokens.sources.base import TokenFetchError
from proxy.tokens.sources.deadline import TimedCalls
from proxy.tokens.sources.oauth_error import PASSING_CODES, error_code
from proxy.tokens.sources.retry_after import parse_retry_after

CONNECT_TIMEOUT_S = 2.0
REPLY_MOST_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer of a token endpoint to one request; the body may hold the token."""

    status: int
    fields: httpx.Headers = field(repr=False)
    body: bytes = field(repr=False)


Observer: TypeAlias = Callable[[Reply], object]


class TokenEndpoint:
    """An HTTP client for one token endpoint: no redirects, no environment, no connection kept between fetches."""

    def __init__(
        self, url: str, *, method: str = "POST", tls: Callable[[], ssl.SSLContext], observe: Observer | None = None
    ) -> None:
        """`tls` makes the context for one fetch, so that files which were renewed count; it raises OSError where one
        cannot be read. `observe` is given each whole reply before it is judged, good or not: for whoever must say what
        is wrong."""
        self._url = url
        self._method = method
        self._tls = tls
        self._observe = observe
        self._calls = TimedCalls("token endpoint")
        self._closed = False

    def ask(self, **parts: Any) -> Reply:
        """Send one request; `parts` are httpx's own (json, data, params, headers, auth). Judges the status only.

        Raises TokenFetchError: no 2xx answer within 5 s, or one of more than 1 MiB.
        """
        if self._closed:
            raise TokenFetchError("token endpoint: closed")
        connection = _Connection()
        reply = self._calls.run(
            lambda: self._request(parts, connection), FETCH_DEADLINE_S, break_off=connection.break_off
        )
        if self._observe is not None:
            self._observe(reply)
        _check_status(reply)
        return reply

    def close(self) -> None:
        """Ask no more; a request in flight has its deadline."""
        self._closed = True

    def _request(self, parts: Mapping[str, Any], connection: "_Connection") -> Reply:
        extensions = {"trace": connection.on_event}
        try:
            with (
                closing(connection),
                self._make_client() as client,
                client.stream(self._method, self._url, extensions=extensions, **parts) as response,
            ):
                return _read(response)
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError, ValueError) as error:
            broke = isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError)
            raise TokenFetchError(f"token endpoint: {_reason(error)}", connection=broke) from None

    def _make_client(self) -> httpx.Client:
        """A client for one fetch: a connection kept for the 2 minutes until the next would mostly be a stale one."""
        try:
            context = self._tls()
        except OSError as error:  # ssl.SSLError is one too
            text = f"ca_bundle or client_cert cannot be read: {error.strerror or type(error).__name__}"
            raise TokenFetchError(text) from None
        return httpx.Client(
            verify=context,
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(FETCH_DEADLINE_S, connect=CONNECT_TIMEOUT_S),
            headers={"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "llm-proxy"},
        )


class _Connection:
    """The connection of one request, for whoever must break it off while another thread waits for its bytes."""

    def __init__(self) -> None:
        # Guards both: no break-off may be lost between them, nor hit whoever gets the number of a closed socket.
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._is_broken_off = False

    def on_event(self, name: str, info: Mapping[str, Any]) -> None:
        """httpx's `trace` extension. Keeps a duplicate, as TLS takes the socket out of its object; a shutdown is the
        connection's, whichever of the two it is made on."""
        if name == "connection.connect_tcp.complete":
            with self._lock:
                self._socket = info["return_value"].get_extra_info("socket").dup()
                self._shut_down_if_broken_off()

    def break_off(self) -> None:
        """Fail what is on its way; where nothing is connected yet, do it as soon as there is."""
        with self._lock:
            self._is_broken_off = True
            self._shut_down_if_broken_off()

    def close(self) -> None:
        with self._lock:
            if self._socket is not None:
                self._socket.close()
                self._socket = None

    def _shut_down_if_broken_off(self) -> None:
        if self._is_broken_off and self._socket is not None:
            with suppress(OSError):  # the issuer has gone
                self._socket.shutdown(socket.SHUT_RDWR)


def _read(response: httpx.Response) -> Reply:
    body = bytearray()
    # Raw bytes: identity was asked for, and unpacking what came packed all the same could fill the memory.
    for piece in response.iter_raw():
        body += piece
        if len(body) > REPLY_MOST_BYTES:
            raise TokenFetchError(f"token endpoint: reply of more than {REPLY_MOST_BYTES} bytes")
    return Reply(response.status_code, response.headers, bytes(body))


def _reason(error: Exception) -> str:
    """The kind of a transport error in words; its own text may quote a header, so it stays out."""
    cause = error.__cause__ or error.__context__
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    detail = cause.strerror if isinstance(cause, OSError) and cause.strerror else ""
    return f"{type(error).__name__}: {detail}" if detail else type(error).__name__


def _check_status(reply: Reply) -> None:
    if 200 <= reply.status < 300:
        return
    if 300 <= reply.status < 400:
        raise TokenFetchError(f"token endpoint: status {reply.status}, and redirects are not followed")
    code = error_code(reply.body)
    raise TokenFetchError(
        f"token endpoint: status {reply.status}" + (f", {code}" if code else ""),
        refused=reply.status in (400, 401, 403) and code not in PASSING_CODES,
        retry_after_s=parse_retry_after(reply.fields.get("Retry-After")),
    )
