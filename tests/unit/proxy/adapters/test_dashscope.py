import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.adapters import ApiError, InvalidRequest
from proxy.adapters.call import CHAT, EMBEDDINGS, AdaptedCall
from proxy.adapters.dashscope import GENERATION, TEXT_EMBEDDING, DashScope
from proxy.errors import UpstreamUnavailable

HI: list[dict[str, Any]] = [{"role": "user", "content": "Hi"}]


def parameters_of(**members: Any) -> dict[str, Any]:
    request = DashScope().chat_request({"model": "qwen-plus", "messages": HI, **members})
    assert (request.path, request.members["model"], request.members["input"]) == (
        GENERATION,
        "qwen-plus",
        {"messages": HI},
    )
    return dict(request.members["parameters"])


def chunks_of(*events: dict[str, Any], name: str = "result", **body: Any) -> list[dict[str, Any]]:
    stream = DashScope().chat_stream({"model": "m", **body})
    chunks = [chunk for event in events for chunk in stream.event(name, json.dumps(event))]
    return [*chunks, *stream.end()]


def event(reason: str = "null", index: int = 0, usage: Any = None, **message: Any) -> dict[str, Any]:
    choices = [{"index": index, "finish_reason": reason, "message": message}]
    return {"output": {"choices": choices}, "request_id": "r", **({"usage": usage} if usage else {})}


def deltas(chunks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [chunk["choices"][0]["delta"] for chunk in chunks]


@pytest.mark.parametrize(
    ("members", "parameters"),
    [
        pytest.param({}, {}, id="none"),
        pytest.param({"temperature": 0, "top_p": 0.5, "seed": 1, "stop": ["a"]}, ..., id="of the same name"),
        pytest.param({"enable_search": True, "top_k": 3, "thinking_budget": 5}, ..., id="DashScope's own"),
        pytest.param({"tools": [{}], "tool_choice": "auto", "parallel_tool_calls": True}, ..., id="tools"),
        pytest.param({"response_format": {"type": "json_object"}, "n": 2, "logprobs": True}, ..., id="formats"),
        pytest.param({"max_tokens": 5, "max_completion_tokens": 9}, {"max_tokens": 9}, id="the newer limit"),
        pytest.param({"max_tokens": 5, "max_completion_tokens": None}, {"max_tokens": 5}, id="the newer limit null"),
        pytest.param({"user": "u", "metadata": {}, "store": True, "drop_params": True}, {}, id="OpenAI's own"),
        pytest.param({"temperature": None, "stop": None}, {}, id="nulls"),
        pytest.param({"stream": False, "stream_options": None}, {}, id="not streamed"),
        pytest.param({"stream": True}, {"incremental_output": True}, id="streamed"),
    ],
)
def test_members_become_parameters(members: dict[str, Any], parameters: Any) -> None:
    expected = members if parameters is ... else parameters
    assert parameters_of(**members) == {**expected, "result_format": "message"}


def test_stream_is_asked_for_in_the_head() -> None:
    body = {"model": "m", "messages": HI}
    assert DashScope().chat_request({**body, "stream": True}).fields == {"X-DashScope-SSE": "enable"}
    assert DashScope().chat_request(body).fields == {}


@pytest.mark.parametrize(("given", "texts"), [("a", ["a"]), (["a", "b"], ["a", "b"])], ids=["one text", "several"])
def test_embeddings_are_asked_for_by_texts(given: Any, texts: list[str]) -> None:
    body = {"model": "e", "input": given, "dimensions": 64, "text_type": "query", "encoding_format": "base64"}
    request = DashScope().embeddings_request(body)
    assert request.path == TEXT_EMBEDDING
    parameters = {"dimension": 64, "text_type": "query"}
    assert request.members == {"model": "e", "input": {"texts": texts}, "parameters": parameters}


@pytest.mark.parametrize("given", [[1, 2], [[1], [2]], ["a", 1]], ids=["array", "arrays", "both"])
def test_token_arrays_are_refused(given: Any) -> None:
    with pytest.raises(InvalidRequest):
        DashScope().embeddings_request({"model": "e", "input": given})


def test_embeddings_are_put_in_order() -> None:
    items = [{"text_index": at, "embedding": [at]} for at in (1, 0)]
    answer = {"output": {"embeddings": items}, "usage": {"total_tokens": 4}}
    document = DashScope().embeddings_answer({"model": "e"}, answer)
    assert [item["embedding"] for item in document["data"]] == [[0], [1]]
    assert document["usage"]["total_tokens"] == 4


@pytest.mark.parametrize("indexes", [(0, 2), (1, 2), (0, 0, 1)], ids=str)
def test_embeddings_of_other_texts_are_not_taken_for_those_asked_for(indexes: tuple[int, ...]) -> None:
    items = [{"text_index": at, "embedding": [at]} for at in indexes]
    call = AdaptedCall(DashScope(), EMBEDDINGS, b'{"model": "e", "input": ["a", "b", "c"]}')
    with pytest.raises(UpstreamUnavailable):
        call.whole(json.dumps({"output": {"embeddings": items}}).encode())


@pytest.mark.parametrize(
    ("given", "reason"), [("stop", "stop"), ("length", "length"), ("tool_calls", "tool_calls"), ("null", "stop")]
)
def test_reasons_to_end_a_whole_answer(given: str, reason: str) -> None:
    (choice,) = DashScope().chat_answer({"model": "m"}, event(given, content="a"))["choices"]
    assert (choice["finish_reason"], choice["message"]) == (reason, {"role": "assistant", "content": "a"})


def test_null_as_a_text_is_no_reason_to_end_a_stream() -> None:
    chunks = chunks_of(event(content="a"), event("stop", content=""))
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, "stop"]
    assert {chunk["id"] for chunk in chunks} == {"chatcmpl-r"}


EVENTS = b"".join(
    b"id:%d\nevent:result\n:HTTP_STATUS/200\ndata:%s\n\n" % (number, json.dumps(each, ensure_ascii=False).encode())
    for number, each in enumerate(
        [event(content=""), event(content="ö"), event(content=" \n"), event("stop", content="")]
    )
)


@given(st.lists(st.integers(0, len(EVENTS))))
def test_reads_may_be_cut_anywhere(places: list[int]) -> None:
    call = AdaptedCall(DashScope(), CHAT, json.dumps({"model": "m", "messages": HI, "stream": True}).encode())
    converter = call.converter()
    cuts = sorted({0, *places, len(EVENTS)})
    frames = b"".join(converter.feed(EVENTS[start:end]) for start, end in pairwise(cuts)) + converter.end()
    *texts, done, _ = frames.split(b"\n\n")
    assert done == b"data: [DONE]"
    made = [json.loads(text.removeprefix(b"data: "))["choices"][0] for text in texts]
    assert "".join(choice["delta"].get("content", "") for choice in made) == "ö \n"
    assert made[-1]["finish_reason"] == "stop"


def test_events_without_anything_new_make_no_chunk() -> None:
    assert chunks_of(event(content=""), event(content="", reasoning_content="")) == []


def test_id_and_name_of_a_call_are_told_once_and_its_arguments_in_pieces() -> None:
    def piece(arguments: str, index: int, **function: Any) -> dict[str, Any]:
        call = {"index": index, "id": f"c{index}", "type": "function", "function": {"arguments": arguments, **function}}
        return event(content="", tool_calls=[call])

    chunks = chunks_of(piece("{", 0, name="f"), piece("}", 0, name="f"), piece("{}", 1, name="g"))
    calls = [delta["tool_calls"] for delta in deltas(chunks)]
    assert calls == [
        [{"index": 0, "id": "c0", "type": "function", "function": {"name": "f", "arguments": "{"}}],
        [{"index": 0, "function": {"arguments": "}"}}],
        [{"index": 1, "id": "c1", "type": "function", "function": {"name": "g", "arguments": "{}"}}],
    ]


def test_usage_of_the_last_event_is_told_at_the_end_with_its_details() -> None:
    first = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
    last = {"input_tokens": 1, "output_tokens": 5, "output_tokens_details": {"reasoning_tokens": 3}}
    events = event(content="a", usage=first), event("stop", usage=last)
    *_, chunk = chunks_of(*events, stream_options={"include_usage": True})
    counts = {"prompt_tokens": 1, "completion_tokens": 5, "total_tokens": 6}
    assert chunk["usage"] == {**counts, "completion_tokens_details": {"reasoning_tokens": 3}}
    assert "usage" not in chunks_of(*events)[-1]


@pytest.mark.parametrize(
    ("name", "code", "status"),
    [
        ("error", "Throttling.RateQuota", 429),
        ("error", "Throttling", 429),
        ("error", "LimitRequests", 429),
        ("error", "ServiceUnavailable", 503),
        ("error", "InvalidApiKey", 401),
        ("error", "AccessDenied.Unpurchased", 403),
        ("error", "ModelNotFound", 404),
        ("error", "BadRequest.EmptyInput", 400),
        ("error", "InvalidParameter", 400),
        ("error", "DataInspectionFailed", 400),
        ("error", "InternalError", 500),
        ("result", "InternalError.Timeout", 500),
    ],
)
def test_error_in_a_stream_is_raised_by_its_name_or_by_its_code(name: str, code: str, status: int) -> None:
    with pytest.raises(ApiError, match="why") as caught:
        chunks_of({"code": code, "message": "why", "request_id": "r"}, name=name)
    assert (caught.value.status, caught.value.code) == (status, code)
