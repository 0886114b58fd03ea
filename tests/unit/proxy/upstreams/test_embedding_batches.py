import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import CallerGone, ProxyError, UpstreamAnswer, UpstreamTimeout, UpstreamUnavailable
from proxy.tokens.token import Token, boot_clock
from proxy.upstreams.client import AsyncUpstreamClient
from proxy.upstreams.embedding_batches import EmbeddingBatches, SplitInput
from proxy.upstreams.event_loop import EventLoopThread
from proxy.upstreams.exchange import Exchange
from proxy.upstreams.request_builder import UpstreamSettings


def batches(max_batch: int) -> EmbeddingBatches:
    """One whose parts are never asked."""
    unused: Any = None
    return EmbeddingBatches(unused, None, unused, max_batch=max_batch, concurrency=1, total_s=5)


def parts_of(body: dict[str, Any], max_batch: int) -> list[dict[str, Any]]:
    """The bodies of all parts."""
    split = SplitInput(body, max_batch)
    return [json.loads(split.content(number)) for number in split.missing()]


# When to split


@pytest.mark.parametrize(
    ("given_input", "expected"),
    [
        pytest.param(["a"], False, id="one"),
        pytest.param(["a"] * 3, False, id="as many as are taken"),
        pytest.param(["a"] * 4, True, id="one more than is taken"),
        pytest.param([], False, id="none"),
        pytest.param("a long text", False, id="one text"),
        pytest.param([1, 2, 3, 4], False, id="one token array"),
        pytest.param([[1], [2], [3]], False, id="as many token arrays as are taken"),
        pytest.param([[1], [2], [3], [4]], True, id="more token arrays than are taken"),
        pytest.param(None, False, id="null"),
        pytest.param({"a": 1}, False, id="an object"),
    ],
)
def test_input_is_split_when_it_has_more_parts_than_the_upstream_takes(given_input: object, expected: bool) -> None:
    assert batches(3).must_split({"model": "m", "input": given_input}) is expected


def test_body_without_input_is_not_split() -> None:
    assert not batches(1).must_split({"model": "m"})


# Splitting


@pytest.mark.parametrize(("count", "sizes"), [(1, [1]), (3, [3]), (4, [3, 1]), (6, [3, 3]), (7, [3, 3, 1])], ids=str)
def test_parts_are_full_but_for_the_last(count: int, sizes: list[int]) -> None:
    assert [len(part["input"]) for part in parts_of({"input": ["a"] * count}, 3)] == sizes


@given(st.lists(st.one_of(st.text(), st.lists(st.integers())), min_size=1), st.integers(1, 20))
def test_parts_hold_the_whole_input_in_order(texts: list[Any], max_batch: int) -> None:
    parts = [part["input"] for part in parts_of({"input": texts}, max_batch)]
    assert [text for part in parts for text in part] == texts
    assert all(1 <= len(part) <= max_batch for part in parts)


def test_parts_have_all_other_members() -> None:
    body = {"model": "m", "input": ["ä", "b"], "dimensions": 8, "x_unknown": {"a": [1]}}
    others = [{name: value for name, value in part.items() if name != "input"} for part in parts_of(body, 1)]
    assert others == [{"model": "m", "dimensions": 8, "x_unknown": {"a": [1]}}] * 2


def test_body_that_is_split_is_not_changed() -> None:
    body = {"model": "m", "input": ["a", "b"]}
    parts_of(body, 1)
    assert body == {"model": "m", "input": ["a", "b"]}


# What has come


def answer(*embeddings: str) -> bytes:
    return json.dumps({"data": [{"index": at, "embedding": item} for at, item in enumerate(embeddings)]}).encode()


def test_answered_parts_are_not_missing_any_more() -> None:
    split = SplitInput({"input": ["a", "b", "c", "d", "e"]}, 2)
    split.take(1, answer("c", "d"))
    assert split.missing() == [0, 2]


def test_parts_are_joined_in_order_whichever_came_first() -> None:
    split = SplitInput({"input": ["a", "b", "c", "d", "e"]}, 2)
    for number, texts in ((2, "e"), (0, "ab"), (1, "cd")):
        split.take(number, answer(*texts))
    data = json.loads(split.joined())["data"]
    assert [(item["index"], item["embedding"]) for item in data] == list(enumerate("abcde"))


def test_parts_whose_numbers_fit_only_together_are_an_error() -> None:
    split = SplitInput({"input": ["a", "b", "c", "d"]}, 2)
    with pytest.raises(UpstreamUnavailable):
        split.take(0, answer("a", "b", "c"))  # with one of the other part it would be four
    assert split.missing() == [0, 1]


# Asking for the parts

Handler = Callable[[str, str], Coroutine[Any, Any, httpx2.Response]]  # a part's only text, and the token


class FakeTokens:
    """A holder that has a new token each time that one is refused, until `last`; `expires` once, where it is set."""

    def __init__(self, last: int = 99) -> None:
        self.number = 1
        self.last = last
        self.expires = False

    def token(self) -> Token:
        self.expires = False
        return Token(f"token-{self.number}", fetched_at=boot_clock(), lifetime_s=300, generation=self.number)

    def usable_token(self) -> Token | None:
        return None if self.expires else self.token()

    def replacement(self, refused: Token) -> Token | None:
        if refused.value == f"token-{self.number}" and self.number == self.last:
            return None
        self.number += refused.value == f"token-{self.number}"
        return self.token()


class Upstream:
    """Answers each part of one text by a coroutine, and notes what was asked for and what became of it."""

    def __init__(self, handler: Handler) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self._handler = handler

    async def __call__(self, request: httpx2.Request) -> httpx2.Response:
        [text] = json.loads(request.content)["input"]
        self.begun.append(text)
        try:
            return await self._handler(text, request.headers.get("Authorization", ""))
        finally:
            self.ended.append(text)


async def good(text: str, _: str) -> httpx2.Response:
    return httpx2.Response(200, stream=Body(answer(text)))


class Body(httpx2.AsyncByteStream):
    def __init__(self, data: bytes) -> None:
        self._data = data

    async def __aiter__(self) -> Any:
        yield self._data


@pytest.fixture
def loop() -> Iterator[EventLoopThread]:
    loop = EventLoopThread()
    yield loop
    loop.close()


def create(
    loop: EventLoopThread,
    upstream: Upstream,
    tokens: Any = None,
    *,
    texts: str = "abcdef",
    concurrency: int = 2,
    total_s: float = 5,
    exchange: Exchange | None = None,
) -> list[str]:
    """The embeddings of these texts, each of which is a part; the upstream's are the texts themselves."""
    client = AsyncUpstreamClient(UpstreamSettings("http://upstream/v1"), tokens, httpx2.MockTransport(upstream))
    batches = EmbeddingBatches(client, tokens, loop, max_batch=1, concurrency=concurrency, total_s=total_s)
    body = {"model": "m", "input": list(texts)}
    joined = batches.create(body, fields=[], exchange=exchange or Exchange(), as_base64=False)
    return [item["embedding"] for item in json.loads(joined)["data"]]


@pytest.mark.parametrize("concurrency", [1, 2, 6, 100])
def test_parts_are_asked_for_so_many_at_a_time(loop: EventLoopThread, concurrency: int) -> None:
    running: list[int] = []

    async def wait(text: str, token: str) -> httpx2.Response:
        running.append(len(upstream.begun) - len(upstream.ended))
        for _ in range(3):
            await asyncio.sleep(0)
        return await good(text, token)

    upstream = Upstream(wait)
    assert create(loop, upstream, concurrency=concurrency) == list("abcdef")
    assert max(running) == min(concurrency, 6)


class TwoAtOnce:
    """A client whose first two parts end in the same turn of the loop: one fails, and the other is answered."""

    def __init__(self, failing: str) -> None:
        self.begun: list[str] = []
        self._failing = failing
        self._waiting: list[asyncio.Future[None]] = []

    async def send(self, _: str, *, content: bytes, **__: Any) -> bytes:
        [text] = json.loads(content)["input"]
        self.begun.append(text)
        self._waiting.append(asyncio.get_running_loop().create_future())
        if len(self.begun) == 2:
            asyncio.get_running_loop().call_soon(self._end_both)
        await self._waiting[-1]
        if text == self._failing:
            raise UpstreamAnswer(422, [], b"{}")
        return answer(text)

    def _end_both(self) -> None:
        for future in self._waiting:
            future.set_result(None)


@pytest.mark.parametrize(("failing", "begun"), [("a", "ab"), ("b", "abc")])
def test_no_part_is_begun_once_one_has_failed(loop: EventLoopThread, failing: str, begun: str) -> None:
    client: Any = TwoAtOnce(failing)
    batches = EmbeddingBatches(client, None, loop, max_batch=1, concurrency=2, total_s=5)
    with pytest.raises(UpstreamAnswer):
        batches.create({"input": list("abcdef")}, fields=[], exchange=Exchange(), as_base64=False)
    assert client.begun == list(begun)  # c where a was answered before b failed


def test_parts_that_are_under_way_are_cancelled_with_a_failed_one(loop: EventLoopThread) -> None:
    async def fail_or_hang(text: str, _: str) -> httpx2.Response:
        if text == "b":
            return httpx2.Response(500, stream=Body(b""))
        return await asyncio.Future()

    upstream = Upstream(fail_or_hang)
    with pytest.raises(UpstreamAnswer):
        create(loop, upstream)
    loop.run(_turn, Exchange())
    assert (upstream.begun, sorted(upstream.ended)) == (["a", "b"], ["a", "b"])


async def _turn() -> None:
    await asyncio.sleep(0.01)


def test_caller_that_leaves_ends_all_parts(loop: EventLoopThread) -> None:
    exchange = Exchange()

    async def leave_at_the_third(text: str, token: str) -> httpx2.Response:
        if text in "cd":
            exchange.break_off()
            return await asyncio.Future()
        return await good(text, token)

    upstream = Upstream(leave_at_the_third)
    with pytest.raises(CallerGone):
        create(loop, upstream, exchange=exchange)
    loop.run(_turn, Exchange())
    assert sorted(upstream.begun) == sorted(upstream.ended)
    assert set("ef").isdisjoint(upstream.begun)


def test_time_is_one_for_all_parts_together(loop: EventLoopThread) -> None:
    async def take_a_while(text: str, token: str) -> httpx2.Response:
        await asyncio.sleep(0.1)
        return await good(text, token)

    with pytest.raises(UpstreamTimeout):
        create(loop, Upstream(take_a_while), concurrency=1, total_s=0.25)


# A token that is refused, or runs out


def refusing(*refusals: tuple[str, int]) -> Handler:
    """Refuses a token at a text: `("d", 1)` the first one at d and wherever it is sent later."""
    refused: set[str] = set()

    async def handle(text: str, token: str) -> httpx2.Response:
        refused.update(
            f"Bearer token-{number}" for at, number in refusals if at == text and token.endswith(f"-{number}")
        )
        return httpx2.Response(401, stream=Body(b"")) if token in refused else await good(text, token)

    return handle


@pytest.mark.parametrize(
    ("refusals", "begun"),
    [
        pytest.param([("a", 1)], "aabcdef", id="at once"),
        pytest.param([("d", 1)], "abcddef", id="in the middle"),
        pytest.param([("f", 1)], "abcdeff", id="at the last"),
        pytest.param([("b", 1), ("e", 2)], "abbcdeef", id="two, one after the other"),
    ],
)
def test_refused_token_is_not_seen_and_what_was_answered_is_kept(
    loop: EventLoopThread, refusals: list[tuple[str, int]], begun: str
) -> None:
    upstream = Upstream(refusing(*refusals))
    assert create(loop, upstream, FakeTokens(), concurrency=1) == list("abcdef")
    assert upstream.begun == list(begun)


@pytest.mark.parametrize("refusals", [[("a", 1), ("a", 2)], [("c", 1), ("c", 2)]], ids=["first", "middle"])
def test_fresh_token_that_is_refused_at_once_ends_it(loop: EventLoopThread, refusals: list[tuple[str, int]]) -> None:
    upstream, tokens = Upstream(refusing(*refusals)), FakeTokens()
    with pytest.raises(UpstreamUnavailable) as caught:
        create(loop, upstream, tokens, concurrency=1)
    assert (caught.value.status, caught.value.takes_nobody, tokens.number) == (502, False, 2)


def test_refused_token_without_another_one_ends_it(loop: EventLoopThread) -> None:
    with pytest.raises(UpstreamUnavailable):
        create(loop, Upstream(refusing(("c", 1))), FakeTokens(last=1))


def test_token_that_runs_out_in_the_middle_is_waited_for(loop: EventLoopThread) -> None:
    tokens = FakeTokens()

    async def run_out_after_c(text: str, token: str) -> httpx2.Response:
        tokens.expires = text == "c"
        return await good(text, token)

    upstream = Upstream(run_out_after_c)
    assert create(loop, upstream, tokens, concurrency=1) == list("abcdef")
    assert upstream.begun == list("abcdef")


def test_refusal_without_a_token_of_ours_is_an_error(loop: EventLoopThread) -> None:
    async def refuse(*_: str) -> httpx2.Response:
        return httpx2.Response(401, stream=Body(b""))

    with pytest.raises(ProxyError) as caught:
        create(loop, Upstream(refuse))
    assert caught.value.status == 502
