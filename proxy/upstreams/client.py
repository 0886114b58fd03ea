"""UpstreamClient and AsyncUpstreamClient: the SDK's clients, with a fresh token on each attempt and bytes both ways.

The SDK's own `request()` drives: it builds, sends and sorts errors. Two of its hooks are ours: `_build_request` takes
the token of this attempt, and `_send_request` puts it to a head prepared once, hands the bytes to the transport, and
replays once after a 401. What the SDK would do in between for keys and redirects of its own is left out.
Everything the SDK would read from the environment (`OPENAI_*`, proxies) is left aside, since a setting that nobody
sees in `config.yaml` must not decide where a credential goes. This folder alone knows the SDK and its errors.
"""

from contextlib import suppress
from typing import Any

import httpx2
from openai import APIConnectionError, APIStatusError, AsyncOpenAI, OpenAI
from openai._models import FinalRequestOptions, SecurityOptions

from proxy.errors import UpstreamUnavailable
from proxy.headers import Fields
from proxy.tokens.holder import TokenHolder
from proxy.tokens.token import Token
from proxy.upstreams.answer import WHOLE_MOST_BYTES, Answer
from proxy.upstreams.answer_body import ERROR_BODY_MOST_BYTES
from proxy.upstreams.content import Content
from proxy.upstreams.exchange import Exchange
from proxy.upstreams.request_builder import RequestBuilder, UpstreamSettings, keep
from proxy.upstreams.sdk_errors import status_error, translate_error
from proxy.upstreams.transport import SocketTransport

# What the SDK would else take from the environment. The key never leaves, since `_build_request` makes the fields.
_SDK_OPTIONS: dict[str, Any] = {"api_key": "set-per-request", "organization": "", "project": "", "max_retries": 0}
_NO_BODY = httpx2.ByteStream(b"")
_PYDANTIC_SLOTS = ("__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__")


class UpstreamOptions(FinalRequestOptions):  # type: ignore[misc]  # final for type checkers, to whom ours is unknown
    """The SDK's description of one request, with what goes past the SDK."""

    fields: Any = ()  # the caller's, as they were checked
    exchange: Any = None  # what may break the request off

    @classmethod
    def prepare(cls, method: str, path: str) -> Any:
        """What the requests of a route have in common, to be copied for each: pydantic takes its time to make one."""
        # Without a key for idempotency the SDK would draw one each time, which goes nowhere.
        return cls.construct(method=method, url=path, idempotency_key="not sent")

    def of(self, content: Content, fields: Fields, exchange: Exchange) -> Any:
        options: Any = self.__class__.__new__(self.__class__)
        # By hand: pydantic's own copy takes as long as a body's parse.
        options.__dict__.update(self.__dict__, content=content, fields=fields, exchange=exchange)
        for slot in _PYDANTIC_SLOTS:
            object.__setattr__(options, slot, getattr(self, slot))
        return options

    def model_copy(self, **_: Any) -> "UpstreamOptions":
        """The SDK copies what it was given before each attempt; here there is one, and it has its own already."""
        return self


class UpstreamClient(OpenAI):
    """One upstream, asked from request threads or greenlets. Built once per worker, after the fork."""

    def __init__(self, settings: UpstreamSettings, tokens: TokenHolder | None, transport: SocketTransport) -> None:
        self._builder = RequestBuilder(settings)
        self._tokens = tokens
        self._transport = transport
        self._prepared: dict[tuple[str, str], UpstreamOptions] = {}
        super().__init__(
            **_SDK_OPTIONS,
            base_url=settings.base_url,
            http_client=httpx2.Client(transport=transport, trust_env=False, follow_redirects=False),
        )

    def send(self, method: str, path: str, *, content: Content, fields: Fields, exchange: Exchange) -> Answer:
        """Ask the upstream; returns once the head of a good answer is here.

        Raises TokenUnavailable, UpstreamUnavailable, UpstreamTimeout, UpstreamAnswer (its own 4xx or 5xx, read whole
        up to 64 KiB) or CallerGone, and what the pieces of a streamed content raise. Nothing is retried but one replay
        after a refused token.
        """
        prepared = self._prepared.get((method, path))
        if prepared is None:
            prepared = keep(self._prepared, (method, path), UpstreamOptions.prepare(method, path))
        try:
            response = self.request(httpx2.Response, prepared.of(content, fields, exchange), stream=True)
        except (APIConnectionError, APIStatusError, httpx2.HTTPError) as error:
            raise translate_error(error, exchange) from error
        if response.status_code == 204:
            response.close()
            raise UpstreamUnavailable(cause="the upstream answered 204")
        return Answer(response.extensions["answer_body"], exchange)

    def _build_request(self, options: FinalRequestOptions, *, retries_taken: int = 0) -> httpx2.Request:
        token = None if self._tokens is None else self._tokens.token()
        extensions = {"options": options, "token": token}
        # To the SDK only: what leaves is made of the extensions.
        return httpx2.Request(options.method, self._builder.url(options.url), stream=_NO_BODY, extensions=extensions)

    def _send_request(self, request: httpx2.Request, *, stream: bool, **kwargs: Any) -> httpx2.Response:
        refused = request.extensions["token"]
        response = self._exchange(request, refused)
        if self._tokens is None or refused is None or not self._builder.refuses_token(response):
            return response
        with suppress(httpx2.HTTPError):
            response.read()  # so that no connection waits with us for the next token
        token = self._tokens.replacement(refused)
        return response if token is None else self._exchange(request, token)

    def _exchange(self, request: httpx2.Request, token: Token | None) -> httpx2.Response:
        options = request.extensions["options"]
        head = self._builder.head(request.method, options.url, options.content, options.fields, token)
        body = self._transport.send(request.method, head, options.content, options.exchange)
        return body.response(request, with_fields=not 200 <= body.status < 300)

    def _prepare_options(self, options: FinalRequestOptions) -> FinalRequestOptions:
        return options

    def _prepare_request(self, request: httpx2.Request) -> None:
        pass

    def _custom_auth(self, security: SecurityOptions) -> None:
        pass

    def _process_response(self, *, response: httpx2.Response, **_: Any) -> Any:
        return response

    def _make_status_error_from_response(self, response: httpx2.Response) -> APIStatusError:
        return status_error(response)


class AsyncUpstreamClient(AsyncOpenAI):
    """One upstream, asked many times for one request. Lives on the worker's event loop, and nowhere else.

    The loop runs in a native thread, which must not wait for the holder's lock: the token is read from the holder's
    snapshot, and a refused one is raised for the view to renew, which then asks for what is missing.
    """

    def __init__(
        self, settings: UpstreamSettings, tokens: TokenHolder | None, transport: httpx2.AsyncBaseTransport
    ) -> None:
        self._builder = RequestBuilder(settings)
        self._tokens = tokens
        super().__init__(
            **_SDK_OPTIONS,
            base_url=settings.base_url,
            http_client=httpx2.AsyncClient(
                transport=transport,
                trust_env=False,
                follow_redirects=False,
                timeout=httpx2.Timeout(
                    settings.timeouts.idle_s,
                    connect=settings.timeouts.connect_s,
                    read=settings.timeouts.first_byte_s,
                ),
            ),
        )
        # For fields that never leave. The SDK would find it out in a thread of a pool, for whose end Python waits when
        # the worker exits: under gevent in vain, for 10 s.
        self._platform = "Unknown"

    async def send(self, path: str, *, content: bytes, fields: Fields) -> bytes:
        """Ask the upstream; its good answer's body, whole. Raises as UpstreamClient.send, and RefusedToken."""
        options = UpstreamOptions.prepare("POST", path).of(content, fields, Exchange())
        try:
            response = await self.request(httpx2.Response, options, stream=True)
            return await _read_whole(response)
        except (APIConnectionError, APIStatusError, httpx2.HTTPError) as error:
            raise translate_error(error) from error

    def _build_request(self, options: Any, *, retries_taken: int = 0) -> httpx2.Request:
        token = None if self._tokens is None else self._tokens.usable_token()
        if self._tokens is not None and token is None:
            raise RefusedToken(None)
        request = self._builder.request("POST", options.url, options.content, options.fields, token)
        request.extensions["token"] = token
        return request

    def _make_status_error_from_response(self, response: httpx2.Response) -> APIStatusError:
        return status_error(response)

    async def _send_request(self, request: httpx2.Request, *, stream: bool, **kwargs: Any) -> httpx2.Response:
        response = await self._client.send(request, stream=stream, **kwargs)
        refused = request.extensions["token"]
        if refused is not None and self._builder.refuses_token(response):
            await response.aclose()
            raise RefusedToken(refused)
        return response if response.is_success else await _read_error(response)


async def _read_error(response: httpx2.Response) -> httpx2.Response:
    """The same with its body up to a little past the limit; an encoded one's is left unread, as only its status counts.

    The SDK would read it to its end, and unpack it.
    """
    body = bytearray()
    try:
        if response.headers.get("Content-Encoding", "identity") == "identity":
            async for piece in response.aiter_raw():
                body += piece
                if len(body) > ERROR_BODY_MOST_BYTES:
                    break
    finally:
        await response.aclose()
    fields = response.headers.raw
    return httpx2.Response(response.status_code, headers=fields, content=bytes(body), request=response.request)


async def _read_whole(response: httpx2.Response) -> bytes:
    """The raw body. Packed ones are refused unread: unpacked they could be a thousand times as long."""
    body = bytearray()
    try:
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise UpstreamUnavailable(cause="the answer is encoded though identity was asked for")
        async for piece in response.aiter_raw():
            body += piece
            if len(body) > WHOLE_MOST_BYTES:
                raise UpstreamUnavailable(cause=f"the answer is longer than {WHOLE_MOST_BYTES} bytes")
        return bytes(body)
    finally:
        await response.aclose()


class RefusedToken(Exception):
    """The upstream refused this token, or it ran out meanwhile (None); the view renews and asks for what is missing."""

    def __init__(self, token: Token | None) -> None:
        super().__init__("the token was refused")
        self.token = token
