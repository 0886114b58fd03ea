"""One request to a token endpoint, with a deadline for the whole of it; used by every source that asks over HTTP."""

import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import httpx

from proxy.tokens.schedule import FETCH_DEADLINE_S
from proxy.tokens.sources.base import TokenFetchError
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
        self, url: str, *, method: str = "POST", ssl_context: ssl.SSLContext, observe: Observer | None = None
    ) -> None:
        """`observe` is given each whole reply before it is judged, good or not: for whoever must say what is wrong."""
        self._url = url
        self._method = method
        self._observe = observe
        # A connection kept for the 2 minutes between two fetches would mostly be a stale one.
        self._client = httpx.Client(
            verify=ssl_context,
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(FETCH_DEADLINE_S, connect=CONNECT_TIMEOUT_S),
            limits=httpx.Limits(max_keepalive_connections=0),
            headers={"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "llm-proxy"},
        )

    def ask(self, **parts: Any) -> Reply:
        """Send one request; `parts` are httpx's own (json, data, params, headers, auth). Judges the status only.

        Raises TokenFetchError: no 2xx answer within 5 s, or one of more than 1 MiB.
        """
        if self._client.is_closed:
            raise TokenFetchError("token endpoint: closed")
        deadline = _Deadline(FETCH_DEADLINE_S)
        try:
            reply = self._send(deadline, parts)
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError, ValueError) as error:
            reason = "no answer within the deadline" if deadline.passed else _reason(error)
            broke = isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError) and not deadline.passed
            raise TokenFetchError(f"token endpoint: {reason}", connection=broke) from None
        finally:
            deadline.cancel()
            self._client.cookies.clear()  # a session of the issuer's must not decide over the next fetch
        if deadline.passed:  # a body without a length ends where the connection was broken off, and looks whole
            raise TokenFetchError("token endpoint: no answer within the deadline")
        if self._observe is not None:
            self._observe(reply)
        _check_status(reply)
        return reply

    def close(self) -> None:
        self._client.close()

    def _send(self, deadline: "_Deadline", parts: Mapping[str, Any]) -> Reply:
        body = bytearray()
        extensions = {"trace": deadline.on_connection_event}
        with self._client.stream(self._method, self._url, extensions=extensions, **parts) as response:
            # Raw bytes: identity was asked for, and unpacking what came packed all the same could fill the memory.
            for piece in response.iter_raw():
                body += piece
                if len(body) > REPLY_MOST_BYTES:
                    raise TokenFetchError(f"token endpoint: reply of more than {REPLY_MOST_BYTES} bytes")
            return Reply(response.status_code, response.headers, bytes(body))


class _Deadline:
    """Breaks the connection off when the time for the whole request is over; httpx has limits per read only."""

    def __init__(self, seconds: float) -> None:
        self.passed = False
        self._socket: Any = None
        self._timer = threading.Timer(seconds, self._pass)
        self._timer.daemon = True
        self._timer.start()

    def on_connection_event(self, name: str, info: Mapping[str, Any]) -> None:
        """httpx's `trace` extension: remembers the socket, at first the plain one and then the one under TLS."""
        if name in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            self._socket = info["return_value"].get_extra_info("socket")
            if self.passed:
                self._break_off()

    def cancel(self) -> None:
        self._timer.cancel()

    def _pass(self) -> None:
        self.passed = True
        self._break_off()

    def _break_off(self) -> None:
        if self._socket is not None:
            with suppress(OSError):  # closed already
                self._socket.shutdown(socket.SHUT_RDWR)


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
