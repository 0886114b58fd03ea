"""A large embedding request as several small ones: many company gateways take 10 or 25 texts at a time."""

import asyncio
import json
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from proxy.embedding_answer import Part, join, read_part
from proxy.errors import UpstreamTimeout, UpstreamUnavailable
from proxy.headers import Fields
from proxy.tokens.holder import TokenHolder
from proxy.upstreams.client import AsyncUpstreamClient, RefusedToken
from proxy.upstreams.event_loop import EventLoopThread
from proxy.upstreams.exchange import Exchange

PATH = "/embeddings"


@dataclass(slots=True)
class SplitInput:
    """One request's input in parts, and what has come of it. Used on the event loop; the view looks at it in between.

    A part is made when it is its turn and read when it is answered: all at once would hold the worker up.
    """

    body: dict[str, Any]
    max_batch: int
    as_base64: bool = False
    answered: dict[int, Part] = field(default_factory=dict)

    def missing(self) -> list[int]:
        """The numbers of the parts that have no answer."""
        count = -(-len(self.body["input"]) // self.max_batch)
        return [number for number in range(count) if number not in self.answered]

    def content(self, number: int) -> bytes:
        """A part's request body: all members but for its share of the input."""
        return json.dumps({**self.body, "input": self._share(number)}, ensure_ascii=False).encode()

    def take(self, number: int, answer: bytes) -> None:
        """Keep a part's answer. Raises UpstreamUnavailable where it is none to the inputs of this part."""
        first, count = number * self.max_batch, len(self._share(number))
        self.answered[number] = read_part(answer, first=first, count=count, as_base64=self.as_base64)

    def joined(self) -> bytes:
        return join([self.answered[number] for number in sorted(self.answered)])

    def _share(self, number: int) -> list[Any]:
        texts: list[Any] = self.body["input"][number * self.max_batch : (number + 1) * self.max_batch]
        return texts


class EmbeddingBatches:
    """Splits, asks for the parts side by side, and joins the answers in order."""

    def __init__(
        self,
        client: AsyncUpstreamClient,
        tokens: TokenHolder | None,
        loop: EventLoopThread,
        *,
        max_batch: int,
        concurrency: int,
        total_s: float,
    ) -> None:
        self._client = client
        self._tokens = tokens
        self._loop = loop
        self._max_batch = max_batch
        self._concurrency = concurrency
        self._total_s = total_s

    def must_split(self, body: dict[str, Any]) -> bool:
        """Whether the input has more parts than the upstream takes; one text or one token array is one part."""
        parts = body.get("input")
        return isinstance(parts, list) and len(parts) > self._max_batch and not isinstance(parts[0], int)

    def create(self, body: dict[str, Any], *, fields: Fields, exchange: Exchange, as_base64: bool) -> bytes:
        """The joined answer as JSON bytes. Raises as UpstreamClient.send; one part's error is the whole's.

        After a refused token the parts that are missing are asked for with a new one, as no byte has gone to the caller
        yet; and again after each that was of use, since a long input may outlive several.
        """
        if self._tokens is not None:
            self._tokens.token()
        parts = SplitInput(body, self._max_batch, as_base64)
        ends_at = time.monotonic() + self._total_s
        answered = -1
        while True:
            try:
                return self._loop.run(lambda: self._finish(parts, fields, ends_at), exchange)
            except RefusedToken as refused:
                if len(parts.answered) == answered:
                    raise UpstreamUnavailable(cause="the upstream refused a fresh token") from refused
                answered = len(parts.answered)
                self._renew(refused)

    def _renew(self, refused: RefusedToken) -> None:
        if self._tokens is None:
            return
        if refused.token is None:
            self._tokens.token()
        elif self._tokens.replacement(refused.token) is None:
            raise UpstreamUnavailable(cause="the upstream refused the token") from refused

    async def _finish(self, parts: SplitInput, fields: Fields, ends_at: float) -> bytes:
        """Ask for the parts that are missing, so many at a time, until the first error."""
        waiting = deque(parts.missing())

        async def ask() -> None:
            try:
                while waiting:
                    number = waiting.popleft()
                    answer = await self._client.send(PATH, content=parts.content(number), fields=fields)
                    parts.take(number, answer)
            except BaseException:
                waiting.clear()  # before another one, whose answer came meanwhile, begins a part that nobody needs
                raise

        tasks = [asyncio.ensure_future(ask()) for _ in range(min(self._concurrency, len(waiting)))]
        try:
            async with asyncio.timeout(ends_at - time.monotonic()):
                await asyncio.gather(*tasks)
        except TimeoutError as error:
            raise UpstreamTimeout(cause="not all parts in time") from error
        finally:
            for task in tasks:
                task.cancel()
        return parts.joined()
