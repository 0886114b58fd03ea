"""A large embedding request as several small ones: many company gateways take 10 or 25 texts at a time."""

import asyncio
import json
from typing import Any

import jiter

from proxy.errors import UpstreamTimeout, UpstreamUnavailable
from proxy.headers import Fields
from proxy.tokens.holder import TokenHolder
from proxy.upstreams.client import AsyncUpstreamClient, RefusedToken
from proxy.upstreams.event_loop import EventLoopThread
from proxy.upstreams.exchange import Exchange

PATH = "/embeddings"


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

    def create(self, body: dict[str, Any], *, fields: Fields, exchange: Exchange) -> bytes:
        """The joined answer as JSON bytes. Raises as UpstreamClient.send; one part's error is the whole's.

        A refused token is renewed once and the whole is run again: no byte has gone to the caller yet.
        """
        parts = split(body, self._max_batch)
        if self._tokens is not None:
            self._tokens.token()
        try:
            return join(self._loop.run(lambda: self._ask_all(parts, fields), exchange), len(body["input"]))
        except RefusedToken as refused:
            self._renew(refused)
        try:
            return join(self._loop.run(lambda: self._ask_all(parts, fields), exchange), len(body["input"]))
        except RefusedToken as error:
            raise UpstreamUnavailable(cause="the upstream refused a fresh token") from error

    def _renew(self, refused: RefusedToken) -> None:
        if self._tokens is None:
            return
        if refused.token is None:
            self._tokens.token()
        elif self._tokens.replacement(refused.token) is None:
            raise UpstreamUnavailable(cause="the upstream refused the token") from refused

    async def _ask_all(self, parts: list[bytes], fields: Fields) -> list[bytes]:
        turns = asyncio.Semaphore(self._concurrency)

        async def ask(part: bytes) -> bytes:
            async with turns:
                return await self._client.send(PATH, content=part, fields=fields)

        tasks = [asyncio.ensure_future(ask(part)) for part in parts]
        try:
            async with asyncio.timeout(self._total_s):
                return await asyncio.gather(*tasks)
        except TimeoutError as error:
            raise UpstreamTimeout(cause="not all parts in time") from error
        finally:
            for task in tasks:
                task.cancel()


def split(body: dict[str, Any], max_batch: int) -> list[bytes]:
    """The request bodies of the parts; each has all members but for its share of the input."""
    texts = body["input"]
    shares = [texts[at : at + max_batch] for at in range(0, len(texts), max_batch)]
    return [json.dumps({**body, "input": share}, ensure_ascii=False).encode() for share in shares]


def join(answers: list[bytes], count: int) -> bytes:
    """One answer of several: `data` in order with `index` counted on, `usage` added up, the rest as in the first.

    Raises UpstreamUnavailable where there is not an embedding for each of the `count` inputs: those after a gap would
    be taken for other texts' embeddings.
    """
    data: list[Any] = []
    usage: dict[str, Any] = {}
    joined: dict[str, Any] = {}
    for answer in answers:
        document = _read(answer)
        joined = joined or document
        offset = len(data)
        data += [{**item, "index": offset + at} for at, item in enumerate(document["data"])]
        _add_usage(usage, document.get("usage"))
    if len(data) != count:
        raise UpstreamUnavailable(cause=f"{len(data)} embeddings for {count} inputs")
    joined = {**joined, "data": data}
    if usage:
        joined["usage"] = usage
    return json.dumps(joined, ensure_ascii=False).encode()


def _add_usage(usage: dict[str, Any], more: Any) -> None:
    for name, value in more.items() if isinstance(more, dict) else ():
        known = usage.get(name, 0)
        usage[name] = known + value if isinstance(known, int) and isinstance(value, int) else value


def _read(answer: bytes) -> dict[str, Any]:
    try:
        document = jiter.from_json(answer, cache_mode="keys")
        document["data"] = sorted(document["data"], key=lambda item: int(item["index"]))
    except (ValueError, TypeError, KeyError) as error:
        raise UpstreamUnavailable(cause="an embeddings answer without data") from error
    return dict(document)
