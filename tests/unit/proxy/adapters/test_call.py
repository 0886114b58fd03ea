"""One request through an adapter: what leaves, what comes back, and what an adapter's faults become."""

import json
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote

import pytest
from loguru import logger

from proxy.adapters import AdaptedRequest, Adapter, ApiError, ChatStream, choice, completion, usage
from proxy.adapters.call import CHAT, EMBEDDINGS, AdaptedCall
from proxy.errors import InvalidRequest, ProxyError, RouteNotFound, UpstreamAnswer, UpstreamUnavailable

MARK = "s3cret-mark"
STREAM_TYPE = "text/event-stream; charset=utf-8"


class Fake(Adapter):
    """Does what the request's member `do` names."""

    def chat_request(self, body: dict[str, Any]) -> AdaptedRequest:
        do = body.get("do")
        if do == "refuse":
            raise InvalidRequest("No.")
        if do == "fail":
            raise KeyError(MARK)
        query = body.get("query", {})
        return AdaptedRequest(body.get("path", "/chat"), {"model": body["model"]}, body.get("fields", {}), query)

    def chat_answer(self, body: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
        if "status" in answer:
            raise ApiError(answer["status"], "said so", code="c")
        return completion(body, choice(answer["text"]), usage=usage(1, 2))

    def chat_stream(self, body: dict[str, Any]) -> ChatStream:
        return FakeStream(body)

    def embeddings_request(self, body: dict[str, Any]) -> AdaptedRequest:
        if not body.get("input"):
            return super().embeddings_request(body)
        return AdaptedRequest("/embed", {})

    def embeddings_answer(self, body: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
        return {"data": [{"index": at, "embedding": [1.0]} for at in answer["indexes"]]}

    def error(self, status: int, answer: dict[str, Any]) -> dict[str, Any]:
        return {"message": answer["why"]}


class FakeStream(ChatStream):
    def event(self, name: str, data: str) -> Iterable[dict[str, Any]]:
        if name == "error":
            raise ApiError(int(data), MARK)
        yield self.chunk({"content": json.loads(data)["text"]})

    def end(self) -> Iterable[dict[str, Any]]:
        return [self.chunk({}, finish_reason="stop"), *self.usage_chunk(usage(1, 2))]


def call(route: str = CHAT, **members: Any) -> AdaptedCall:
    return AdaptedCall(Fake(), route, json.dumps({"model": "m", **members}).encode())


def blame(error: ProxyError, kind: str) -> None:
    """What is told names the adapter, the error and its line, and none of its text."""
    start = f"adapter {__name__}:Fake: {kind} at "
    assert error.cause.startswith(start)
    assert MARK not in error.cause + error.message


@pytest.fixture
def logged() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lines.append, format="{message}", backtrace=False, diagnose=False)
    yield lines
    logger.remove(sink)


# The request


def test_request_is_the_adapters() -> None:
    made = call(path="/a", fields={"X-A": "b"}, query={"b": "c&d=#", "e": "/../ö"})
    assert made.path == "/a?b=c%26d%3D%23&e=%2F..%2F%C3%B6"
    assert (made.content, made.fields) == (b'{"model": "m"}', [("X-A", "b")])


@pytest.mark.parametrize("model", ["qwen-2.5", "org/name:8b", "..a", "a..", "...", "a#b?c=d e", "ö"])
def test_model_may_stand_in_the_path_when_it_is_quoted(model: str) -> None:
    assert call(path=f"/models/{quote(model, safe='')}/chat").path == f"/models/{quote(model, safe='')}/chat"


@pytest.mark.parametrize("route", ["/rerank", "/images/generations", "/audio/transcriptions", EMBEDDINGS])
def test_route_that_the_adapter_does_not_have_is_404(route: str) -> None:
    with pytest.raises(RouteNotFound, match="does not serve this route"):
        call(route)


def test_what_the_adapter_refuses_is_400_with_its_text() -> None:
    with pytest.raises(InvalidRequest, match=r"No\."):
        call(do="refuse")


def test_request_on_which_the_adapter_fails_is_400() -> None:
    with pytest.raises(InvalidRequest) as caught:
        call(do="fail")
    blame(caught.value, "KeyError")


@pytest.mark.parametrize(
    "members",
    [
        pytest.param({"path": "chat"}, id="no slash"),
        pytest.param({"path": "/a b"}, id="blank in the path"),
        pytest.param({"path": "/a\r\nX: y"}, id="line in the path"),
        pytest.param({"path": "/ä"}, id="letter that is not ASCII"),
        pytest.param({"path": "/models/../../../admin/delete"}, id="dots"),
        pytest.param({"path": "/models/.."}, id="dots at the end"),
        pytest.param({"path": "/./a"}, id="one dot"),
        pytest.param({"path": "/models/%2e%2E/a"}, id="dots quoted"),
        pytest.param({"path": "/models/..%2fa"}, id="slash quoted"),
        pytest.param({"path": "/models/..;a=b/c"}, id="dots with a parameter"),
        pytest.param({"path": "/models\\..\\a"}, id="backslashes"),
        pytest.param({"path": "/models%5C..%5ca"}, id="backslashes quoted"),
        pytest.param({"path": "/a#b"}, id="fragment"),
        pytest.param({"path": "/a?b=c"}, id="query in the path"),
        pytest.param({"path": "/" + "a" * 8192}, id="long path"),
        pytest.param({"query": {"a": "b" * 8192}}, id="long query"),
        pytest.param({"fields": {"X": "a\r\nY: b"}}, id="line in a field"),
        pytest.param({"fields": {"X y": "a"}}, id="blank in a name"),
        pytest.param({"fields": {"Content-Length": "1"}}, id="length"),
        pytest.param({"fields": {"transfer-encoding": "chunked"}}, id="coding"),
        pytest.param({"fields": {"Host": "other.example"}}, id="host"),
    ],
)
def test_head_that_would_be_another_request_is_refused(members: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        call(**members)
    blame(caught.value, "ValueError")


# The answer


def test_whole_answer_is_a_completion() -> None:
    body, content_type = call().whole(b'{"text": "a"}')
    document = json.loads(body)
    assert (content_type, document["choices"][0]["message"]["content"]) == ("application/json", "a")
    assert document["usage"]["total_tokens"] == 3


def test_stream_where_none_was_asked_for_is_put_together() -> None:
    body, content_type = call().whole(b'data: {"text": "a"}\n\ndata: {"text": "b"}\n\n', STREAM_TYPE)
    document = json.loads(body)
    assert (content_type, document["choices"][0]["message"]["content"]) == ("application/json", "ab")
    assert (document["choices"][0]["finish_reason"], document["usage"]["total_tokens"]) == ("stop", 3)


@pytest.mark.parametrize("wanted", [True, False], ids=["with usage", "without usage"])
def test_whole_answer_where_a_stream_was_asked_for_is_streamed(wanted: bool) -> None:
    body, content_type = call(stream=True, stream_options={"include_usage": wanted}).whole(b'{"text": "a"}')
    *frames, done, _ = body.split(b"\n\n")
    chunks = [json.loads(frame.removeprefix(b"data: ")) for frame in frames]
    assert (content_type, done) == ("text/event-stream", b"data: [DONE]")
    assert chunks[0]["choices"][0]["delta"]["content"] == "a"
    assert [chunk.get("usage", {}).get("total_tokens") for chunk in chunks] == [None, 3][: 1 + wanted]


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"text": 1e999}'], ids=str)
def test_answer_that_cannot_be_read_is_502(body: bytes) -> None:
    with pytest.raises(UpstreamUnavailable) as caught:
        call().whole(body)
    assert caught.value.cause.startswith(f"adapter {__name__}:Fake: ")


@pytest.mark.parametrize(("status", "takes_nobody"), [(400, False), (429, True), (500, False), (503, True)])
def test_error_in_an_answer_of_200_has_the_status_that_the_adapter_gives(status: int, takes_nobody: bool) -> None:
    with pytest.raises(UpstreamAnswer) as caught:
        call().whole(json.dumps({"status": status}).encode())
    assert (caught.value.status, caught.value.takes_nobody) == (status, takes_nobody)
    assert json.loads(caught.value.body)["error"]["message"] == "said so"
    assert list(caught.value.fields) == [("Content-Type", "application/json")]


@pytest.mark.parametrize("status", [0, 200, 302, 401, 600])
def test_status_that_means_nothing_to_a_caller_is_502(status: int) -> None:
    with pytest.raises(UpstreamUnavailable):
        call().whole(json.dumps({"status": status}).encode())


@pytest.mark.parametrize(
    ("given", "indexes"),
    [
        pytest.param("a", [0], id="text"),
        pytest.param([1, 2, 3], [0], id="array of tokens"),
        pytest.param(["a", "b", "c"], [2, 0, 1], id="texts in any order"),
        pytest.param([[1, 2], [3]], [0, 1], id="arrays of tokens"),
    ],
)
def test_one_embedding_for_each_input_is_an_answer(given: Any, indexes: list[int]) -> None:
    body, _ = call(EMBEDDINGS, input=given).whole(json.dumps({"indexes": indexes}).encode())
    assert [item["index"] for item in json.loads(body)["data"]] == indexes


@pytest.mark.parametrize(
    ("given", "indexes"),
    [
        pytest.param("a", [], id="none"),
        pytest.param(["a", "b", "c"], [0, 1], id="one too few"),
        pytest.param(["a", "b"], [0, 1, 2], id="one too many"),
        pytest.param([1, 2], [0, 1], id="one for each token"),
        pytest.param(["a", "b", "c"], [0, 2, 2], id="one twice"),
        pytest.param(["a", "b"], [1, 2], id="counted from 1"),
    ],
)
def test_embeddings_that_are_not_one_for_each_input_are_502(given: Any, indexes: list[int]) -> None:
    with pytest.raises(UpstreamUnavailable) as caught:
        call(EMBEDDINGS, input=given).whole(json.dumps({"indexes": indexes}).encode())
    blame(caught.value, "ValueError")


# The upstream's errors


@pytest.mark.parametrize(
    "body",
    [b'{"why": "a"}', b'id:1\nevent:error\n:HTTP_STATUS/429\ndata:{"why": "a"}\n\n', b'\r\ndata: {"why": "a"}\r\n\r\n'],
    ids=["object", "event", "event with CRLF"],
)
def test_error_keeps_its_status_and_fields(body: bytes) -> None:
    fields = [("Content-Type", "text/html"), ("Retry-After", "3")]
    error = call().error(UpstreamAnswer(429, fields, body))
    assert (error.status, json.loads(error.body), error.takes_nobody) == (429, {"error": {"message": "a"}}, True)
    assert list(error.fields) == [("Retry-After", "3"), ("Content-Type", "application/json")]


def test_error_that_the_adapter_cannot_read_keeps_its_status() -> None:
    error = call().error(UpstreamAnswer(503, [], f'{{"{MARK}": 1}}'.encode()))
    assert (error.status, error.body, error.takes_nobody) == (503, b"", True)
    blame(error, "KeyError")


# The stream


def test_event_on_which_the_adapter_fails_breaks_the_stream() -> None:
    converter = call(stream=True).converter()
    assert converter.feed(b'data: {"text": "a"}\n\n')
    with pytest.raises(UpstreamUnavailable) as caught:
        converter.feed(f'data: {{"{MARK}": 1}}\n\n'.encode())
    blame(caught.value, "KeyError")


def test_fault_in_a_library_is_told_by_the_adapters_own_line() -> None:
    with pytest.raises(UpstreamUnavailable) as caught:
        call(stream=True).converter().feed(b"data: odd\n\n")
    assert "JSONDecodeError at test_call.py:" in caught.value.cause


@pytest.mark.parametrize("status", [200, 401])
def test_error_that_is_not_for_the_caller_breaks_the_stream_without_its_text(status: int, logged: list[str]) -> None:
    with pytest.raises(UpstreamUnavailable) as caught:
        call(stream=True).converter().feed(b"event: error\ndata: %d\n\n" % status)
    assert f"answered {status}" in caught.value.cause
    assert logged == [f"{caught.value.cause}\n"]
    assert MARK not in caught.value.cause


@pytest.mark.parametrize("options", [None, "x", [], {"include_usage": None}], ids=str)
def test_odd_options_of_a_stream_are_no_wish_for_usage(options: Any) -> None:
    converter = call(stream=True, stream_options=options).converter()
    assert b'"usage"' not in converter.feed(b'data: {"text": "a"}\n\n') + converter.end()


def test_event_that_is_too_long_breaks_the_stream() -> None:
    with pytest.raises(UpstreamUnavailable):
        call(stream=True).converter().feed(b"data: " + b"a" * 2_000_000)


def test_adapter_without_streams_breaks_at_their_start() -> None:
    class Short(Adapter):
        def chat_request(self, body: dict[str, Any]) -> AdaptedRequest:
            return AdaptedRequest("/chat", {})

    with pytest.raises(UpstreamUnavailable) as caught:
        AdaptedCall(Short(), CHAT, b'{"stream": true}').converter()
    assert "NotImplementedError" in caught.value.cause
