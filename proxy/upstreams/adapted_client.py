"""The clients of an upstream with an adapter: asked as OpenAI's, they ask in the upstream's own way.

Tokens, replays and errors of the connection are those of the clients that they are made of; what an adapter does to a
request and its answer is told in `proxy.adapters.call`.
"""

import time
from typing import Any

from proxy.adapters.base import Adapter
from proxy.adapters.call import AdaptedCall, GuardedConverter, is_event_stream, with_type
from proxy.errors import UpstreamAnswer
from proxy.headers import Fields
from proxy.sse import MEDIA_TYPE
from proxy.tokens.holder import TokenHolder
from proxy.upstreams.answer import Answer, read_whole
from proxy.upstreams.client import AsyncUpstreamClient, UpstreamClient
from proxy.upstreams.content import Content
from proxy.upstreams.exchange import Exchange
from proxy.upstreams.request_builder import UpstreamSettings
from proxy.upstreams.transport import SocketTransport


class AdaptedClient(UpstreamClient):
    def __init__(
        self, settings: UpstreamSettings, tokens: TokenHolder | None, transport: SocketTransport, adapter: Adapter
    ) -> None:
        super().__init__(settings, tokens, transport)
        self._adapter = adapter

    def send(self, method: str, path: str, *, content: Content, fields: Fields, exchange: Exchange) -> Answer:
        """Ask the upstream; a streamed answer once its head is here, any other once it is read and converted.

        Raises as UpstreamClient.send; RouteNotFound or InvalidRequest for what the adapter has no way to ask.
        """
        if method == "GET":
            raise UpstreamAnswer(404, [], b"")  # it has no list of models, and the config's names count
        # What comes in pieces is an upload, and no adapter has a route for one.
        call = AdaptedCall(self._adapter, path, content if isinstance(content, bytes) else b"")
        sent = [*fields, *call.fields]
        try:
            answer = super().send("POST", call.path, content=call.content, fields=sent, exchange=exchange)
        except UpstreamAnswer as error:
            raise call.error(error) from error
        content_type = next((value for name, value in answer.fields if name.lower() == "content-type"), "")
        if call.is_streamed and is_event_stream(content_type):
            return AdaptedStream(answer, call)
        body, content_type = call.whole(read_whole(answer), content_type)
        return HeldAnswer(answer, body, content_type)


class AsyncAdaptedClient(AsyncUpstreamClient):
    def __init__(
        self, settings: UpstreamSettings, tokens: TokenHolder | None, transport: Any, adapter: Adapter
    ) -> None:
        super().__init__(settings, tokens, transport)
        self._adapter = adapter

    async def send(self, path: str, *, content: bytes, fields: Fields) -> bytes:
        call = AdaptedCall(self._adapter, path, content)
        try:
            body = await super().send(call.path, content=call.content, fields=[*fields, *call.fields])
        except UpstreamAnswer as error:
            raise call.error(error) from error
        return call.whole(body)[0]


class AdaptedStream(Answer):
    """An upstream's stream, converted as it comes."""

    __slots__ = ("_answer", "_converter")

    def __init__(self, answer: Answer, call: AdaptedCall) -> None:
        self.status = answer.status
        self.fields = with_type(answer.fields, MEDIA_TYPE)
        self._answer = answer
        try:
            self._converter: GuardedConverter = call.converter()
        except BaseException:
            answer.close()
            raise

    def read(self, wait_s: float | None = None, at_least: int = 1) -> bytes | None:
        """The frames that came; b"" at the end, None when none was made within wait_s, whatever else came."""
        until = None if wait_s is None else time.monotonic() + wait_s
        converter = self._converter
        while not converter.ended:
            left_s = None if until is None else until - time.monotonic()
            if left_s is not None and left_s <= 0:
                return None
            data = b"" if converter.is_broken else self._answer.read(left_s)
            if data is None:
                return None
            block = self._convert(data)
            if block:
                return block
        return b""

    def finish(self, wait_s: float) -> None:
        self._answer.finish(wait_s)

    def close(self) -> None:
        self._answer.close()

    def _convert(self, data: bytes) -> bytes:
        try:
            return self._converter.feed(data) if data else self._converter.end()
        except BaseException:
            self._answer.close()
            raise


class HeldAnswer(Answer):
    """An answer that was read whole and converted; nothing is left to close."""

    __slots__ = ("_held",)

    def __init__(self, answer: Answer, body: bytes, content_type: str) -> None:
        self.status = answer.status
        self.fields = with_type(answer.fields, content_type)
        self._held = body

    def read(self, wait_s: float | None = None, at_least: int = 1) -> bytes:
        held, self._held = self._held, b""
        return held

    def finish(self, wait_s: float) -> None:
        pass

    def close(self) -> None:
        pass
