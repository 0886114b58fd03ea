"""A thousand inputs where the upstream takes ten at a time: split, asked side by side, and joined in order.

The texts of errors, encodings and time-outs for split embeddings are in test_upstream_faults and test_odd_answers, the
second upstream in test_several_upstreams.
"""

import base64
import json
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.support.proxy_process import ProxyFarm, ProxyProcess
from tests.support.raw_http import RawCaller
from tests.support.recording_upstream import RecordingUpstream, Request, answer_json
from tests.support.sandbox_client import SandboxClient
from tests.support.waiting import wait_for

EMBEDDINGS = "/v1/embeddings"
COUNT = 1000
BATCH = 10
AT_ONCE = 4

Act = Callable[[Request], bytes | None]  # None: answer as always


class Parts:
    """The upstream's own view: embeddings that tell which input they are for, and what a test wants of some parts."""

    def __init__(self) -> None:
        self.act: Act = lambda _: None
        self.takes_base64: Callable[[int], bool] = lambda _: True  # by the number of a part

    def __call__(self, request: Request) -> bytes:
        answer = self.act(request)
        return self.good(request) if answer is None else answer

    def good(self, request: Request) -> bytes:
        members = request.members
        as_base64 = members.get("encoding_format") == "base64" and self.takes_base64(number_of(request))
        vectors = [vector_of(item) for item in members["input"]]
        data = [entry(index, packed(vector) if as_base64 else vector) for index, vector in enumerate(vectors)]
        usage = {"prompt_tokens": len(data), "total_tokens": len(data)}
        # In another order than asked for, as the index is what counts.
        return answer_json({"object": "list", "data": data[::-1], "model": members["model"], "usage": usage})


def vector_of(item: Any) -> list[float]:
    """Of `text 17`, or of the token array [17, 5]."""
    number = int(item.rpartition(" ")[2]) if isinstance(item, str) else item[0]
    return [float(number), 0.5]


def number_of(request: Request) -> int:
    """Of a part, by its first input."""
    return int(vector_of(request.members["input"][0])[0]) // BATCH


def entry(index: int, embedding: Any) -> dict[str, Any]:
    return {"object": "embedding", "index": index, "embedding": embedding}


def packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


TEXTS = [f"text {number}" for number in range(COUNT)]
TOKENS = [[number, 5] for number in range(COUNT)]


@pytest.fixture(scope="module")
def upstream_of_module() -> Iterator[RecordingUpstream]:
    with RecordingUpstream(Parts()) as upstream:
        yield upstream


@pytest.fixture
def parts() -> Parts:
    return Parts()


@pytest.fixture
def upstream(upstream_of_module: RecordingUpstream, parts: Parts) -> RecordingUpstream:
    upstream_of_module.forget(parts)
    return upstream_of_module


@pytest.fixture
def proxy(farm: ProxyFarm, sandbox: SandboxClient, upstream: RecordingUpstream, worker_class: str) -> ProxyProcess:
    config = sandbox.config(
        server={"worker_class": worker_class},
        upstream={
            "base_url": upstream.url,
            "embeddings": {"max_batch": BATCH, "concurrency": AT_ONCE},
            "strip_fields": ["drop_params"],
            "set_fields": {"user": "proxy"},
            "models": {"vectors": "vectors-v3", "*": "*"},
        },
    )
    # Tokens of its own: others would use up the forced fetches of a shared source.
    config["token_sources"]["corp"]["headers"] = {"X-Of": f"large-embeddings-{worker_class}"}
    return farm.proxy(config)


gevent_only = pytest.mark.parametrize("worker_class", ["gevent"])


def ask(proxy: ProxyProcess, given: Any = TEXTS, **members: Any) -> httpx.Response:
    body = {"model": "vectors", "input": given, **members}
    return httpx.post(proxy.url + EMBEDDINGS, json=body, trust_env=False, timeout=30)


def vectors_of(answer: httpx.Response) -> list[list[float]]:
    """As numbers, whichever way they came; an AssertionError where an index is not its place."""
    data = answer.json()["data"]
    assert [item["index"] for item in data] == list(range(len(data)))
    return [item["embedding"] if isinstance(item["embedding"], list) else unpacked(item["embedding"]) for item in data]


def unpacked(text: str) -> list[float]:
    raw = base64.b64decode(text, validate=True)
    return list(struct.unpack(f"<{len(raw) // 4}f", raw))


# A thousand inputs


@pytest.mark.parametrize("encoding", ["float", "base64", None])
@pytest.mark.parametrize("given", [TEXTS, TOKENS], ids=["texts", "token arrays"])
def test_a_thousand_inputs_come_back_in_order_though_one_part_is_slow(
    proxy: ProxyProcess, upstream: RecordingUpstream, parts: Parts, given: list[Any], encoding: str | None
) -> None:
    def wait_for_all_others(request: Request) -> None:
        if number_of(request) < AT_ONCE:
            upstream.wait_until(lambda: len(upstream.requests) >= AT_ONCE)
        if number_of(request) == 7:
            upstream.wait_until(lambda: len(upstream.requests) == COUNT // BATCH and upstream.running == 1)

    parts.act = wait_for_all_others
    answer = ask(proxy, given, **({} if encoding is None else {"encoding_format": encoding}))
    assert answer.status_code == 200
    assert vectors_of(answer) == [vector_of(item) for item in given]
    assert {type(item["embedding"]) for item in answer.json()["data"]} == {str if encoding == "base64" else list}
    assert answer.json()["usage"] == {"prompt_tokens": COUNT, "total_tokens": COUNT}
    assert len(upstream.requests) == COUNT // BATCH
    assert upstream.most_at_once == AT_ONCE


@gevent_only
def test_each_part_has_all_other_members_as_the_config_wants_them(
    proxy: ProxyProcess, upstream: RecordingUpstream
) -> None:
    assert ask(proxy, TEXTS[:25], dimensions=2, drop_params=True, x_unknown={"a": [1]}).status_code == 200
    sent = sorted((request.members for request in upstream.requests), key=lambda members: -len(members["input"]))
    assert [len(members.pop("input")) for members in sent] == [10, 10, 5]
    assert sent == [{"model": "vectors-v3", "dimensions": 2, "x_unknown": {"a": [1]}, "user": "proxy"}] * 3


@gevent_only
@pytest.mark.parametrize(
    "given",
    ["one long text", list(range(1, 101)), [list(range(100))], TEXTS[:10]],
    ids=["text", "tokens", "one", "ten"],
)
def test_what_the_upstream_takes_at_once_is_not_split(
    proxy: ProxyProcess, upstream: RecordingUpstream, parts: Parts, given: Any
) -> None:
    parts.act = lambda _: answer_json({"data": []})
    assert ask(proxy, given).json() == {"data": []}
    [request] = upstream.requests
    assert request.members["input"] == given


@gevent_only
@pytest.mark.parametrize("takes_base64", [lambda _: False, lambda number: number % 2 == 1], ids=["never", "by turns"])
def test_base64_is_made_where_the_upstream_gives_floats(
    proxy: ProxyProcess, parts: Parts, takes_base64: Callable[[int], bool]
) -> None:
    parts.takes_base64 = takes_base64
    answer = ask(proxy, encoding_format="base64")
    assert {type(item["embedding"]) for item in answer.json()["data"]} == {str}
    assert vectors_of(answer) == [vector_of(item) for item in TEXTS]


# What goes wrong


def hold(request: Request) -> None:
    request.wait(threading.Event())


def test_error_of_one_part_is_the_answer_and_ends_all_others(
    proxy: ProxyProcess, upstream: RecordingUpstream, parts: Parts
) -> None:
    error = {"error": {"message": "text 27 is too long", "code": "theirs", "x_unknown": 1}}

    def fail_the_third(request: Request) -> bytes | None:
        if number_of(request) != 2:
            return hold(request)
        upstream.wait_until(lambda: upstream.running == AT_ONCE)
        return answer_json(error, 422, "Retry-After: 3", "x-ratelimit-remaining-tokens: 9", "x-request-id: theirs")

    parts.act = fail_the_third
    answer = ask(proxy)
    assert (answer.status_code, answer.json()) == (422, error)
    names = ("Retry-After", "x-ratelimit-remaining-tokens", "x-upstream-request-id")
    assert [answer.headers.get(name) for name in names] == ["3", "9", "theirs"]
    upstream.wait_until(lambda: upstream.running == 0)
    assert sorted(request.end or "" for request in upstream.requests) == ["answered", "left", "left", "left"]


@gevent_only
@pytest.mark.parametrize(
    ("raw", "status"),
    [
        pytest.param(b"", 502, id="closed"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\nConnection: close\r\n\r\n{", 502, id="cut"),
        pytest.param(answer_json({"error": {}}, 500), 500, id="500"),
        pytest.param(answer_json({"data": []}), 502, id="no embeddings"),
        pytest.param(answer_json({"object": "list"}), 502, id="no data"),
    ],
)
def test_part_without_a_good_answer_fails_the_whole(proxy: ProxyProcess, parts: Parts, raw: bytes, status: int) -> None:
    parts.act = lambda request: raw if number_of(request) == 42 else None
    assert ask(proxy).status_code == status


@gevent_only
def test_counts_that_fit_only_together_never_pass_for_a_good_answer(proxy: ProxyProcess, parts: Parts) -> None:
    def one_too_many_then_one_too_few(request: Request) -> bytes:
        data = [entry(index, [1.0]) for index in range(11 if number_of(request) == 0 else 9)]
        return answer_json({"data": data})

    parts.act = one_too_many_then_one_too_few
    answer = ask(proxy, TEXTS[:20])
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_unavailable")


def test_caller_that_leaves_ends_all_parts(proxy: ProxyProcess, upstream: RecordingUpstream, parts: Parts) -> None:
    parts.act = lambda request: None if number_of(request) < 30 else hold(request)
    with RawCaller(proxy.port) as caller:
        caller.post(EMBEDDINGS, {"model": "vectors", "input": TEXTS})
        upstream.wait_until(lambda: len(upstream.requests) == 30 + AT_ONCE and upstream.running == AT_ONCE)
    upstream.wait_until(lambda: upstream.running == 0)
    assert [request.end for request in upstream.requests].count("left") == AT_ONCE
    assert ask(proxy, TEXTS[:20]).status_code == 200  # of which the parts come next, and none of the others before
    assert len(upstream.requests) == 30 + AT_ONCE + 2


def test_token_that_is_refused_in_the_middle_is_not_seen(
    proxy: ProxyProcess, upstream: RecordingUpstream, parts: Parts
) -> None:
    refused: set[str] = set()

    def refuse_the_first_token_from_the_50th_part_on(request: Request) -> bytes | None:
        token = request.fields["authorization"]
        if number_of(request) == 50 and not refused:
            refused.add(token)
        return answer_json({"error": {}}, 401) if token in refused else None

    parts.act = refuse_the_first_token_from_the_50th_part_on
    answer = ask(proxy)
    assert answer.status_code == 200
    assert vectors_of(answer) == [vector_of(item) for item in TEXTS]
    assert answer.json()["usage"]["prompt_tokens"] == COUNT
    assert len({request.fields["authorization"] for request in upstream.requests}) == 2
    # What was answered is kept: only what was under way at the refusal is asked for twice.
    assert len(upstream.requests) <= COUNT // BATCH + AT_ONCE


USED = " prompt_tokens=30 completion_tokens=0"


def test_usage_of_all_parts_is_in_the_log_and_the_counts(proxy: ProxyProcess) -> None:
    assert ask(proxy, TEXTS[:30]).status_code == 200
    wait_for(lambda: any(" route=/v1/embeddings " in line and USED in line for line in proxy.access_lines()))


# Other requests meanwhile


def test_other_requests_are_served_while_an_embedding_runs(
    proxy: ProxyProcess, upstream: RecordingUpstream, parts: Parts
) -> None:
    served = threading.Event()

    def wait(request: Request) -> None:
        request.wait(served)

    parts.act = wait
    with RawCaller(proxy.port, timeout_s=30) as caller:
        caller.post(EMBEDDINGS, {"model": "vectors", "input": TEXTS}, "Connection: close")
        upstream.wait_until(lambda: upstream.running == AT_ONCE)
        assert httpx.get(proxy.url + "/healthz", trust_env=False, timeout=5).status_code == 200
        served.set()
        assert len(json.loads(caller.read_to_end(20).partition(b"\r\n\r\n")[2])["data"]) == COUNT
