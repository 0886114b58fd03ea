from typing import Any

import pytest

from proxy.adapters import ChatStream, choice, completion, embedding_list, usage
from proxy.adapters.shapes import chunks_of, completion_of

CALLS: list[dict[str, Any]] = [
    {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}},
    {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
]


def test_completion_has_what_the_clients_read() -> None:
    document = completion({"model": "m"}, choice("a", "length"), usage=usage(1, 2, details={}), answer_id="id")
    assert (document["id"], document["model"], document["object"]) == ("id", "m", "chat.completion")
    message = {"role": "assistant", "content": "a"}
    assert document["choices"] == [{"index": 0, "message": message, "logprobs": None, "finish_reason": "length"}]
    assert document["usage"] == {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "details": {}}
    assert "usage" not in completion({"model": "m"}, choice("a"))


def test_embeddings_are_in_their_order() -> None:
    document = embedding_list({"model": "m"}, [(0.5,), [1.5]], prompt_tokens=3)
    assert [(item["index"], item["embedding"]) for item in document["data"]] == [(0, [0.5]), (1, [1.5])]
    assert document["usage"] == {"prompt_tokens": 3, "total_tokens": 3}


@pytest.mark.parametrize(
    "choices",
    [
        pytest.param([choice("a text")], id="text"),
        pytest.param([choice(None, "tool_calls", tool_calls=CALLS)], id="calls"),
        pytest.param([choice("a", reasoning_content="b"), choice("c", "length", index=1)], id="two choices"),
    ],
)
@pytest.mark.parametrize("counts", [None, usage(1, 2)], ids=["no usage", "usage"])
def test_completion_survives_being_streamed(choices: list[dict[str, Any]], counts: dict[str, Any] | None) -> None:
    whole = completion({"model": "m"}, *choices, usage=counts)
    assert completion_of(chunks_of(whole)) == whole


def test_pieces_are_put_together() -> None:
    stream = ChatStream({"model": "m"})
    pieces: list[dict[str, Any]] = [
        {"content": "a"},
        {"content": "b", "reasoning_content": "c"},
        {"tool_calls": [{"index": 0, "id": "i", "type": "function", "function": {"name": "f", "arguments": "{"}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "}"}}]},
    ]
    whole = completion_of([*map(stream.chunk, pieces), stream.chunk({}, finish_reason="tool_calls")])
    message = whole["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("ab", "c")
    assert message["tool_calls"] == [{"id": "i", "type": "function", "function": {"name": "f", "arguments": "{}"}}]


@pytest.mark.parametrize("pieces", [[], [{"content": "a"}]], ids=["nothing", "no end"])
def test_stream_that_was_cut_is_no_completion(pieces: list[dict[str, Any]]) -> None:
    with pytest.raises(ValueError, match="no end"):
        completion_of(map(ChatStream({}).chunk, pieces))
