from typing import Any

import pytest

from proxy.adapters import ApiError, InvalidRequest
from proxy.adapters.plain_sse import PlainSse


def request_of(*messages: dict[str, Any], **members: Any) -> dict[str, Any]:
    request = PlainSse().chat_request({"model": "m", "messages": list(messages), **members})
    assert (request.path, request.fields) == ("/chat", {})
    return dict(request.members)


def test_last_message_is_the_query_and_the_others_are_the_history() -> None:
    before = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    last = {"role": "user", "content": [{"type": "text", "text": "c"}], "name": "n"}
    expected = {"query": "c", "history": before, "stream": True, "model_name": "m", "temperature": 0, "max_tokens": 5}
    assert request_of(*before, last, stream=True, temperature=0, max_tokens=5, top_p=0.5) == expected
    assert request_of(last) == {"query": "c", "history": [], "stream": False, "model_name": "m"}


HI = {"role": "user", "content": "a"}


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("tools", [{}]),
        ("n", 2),
        ("response_format", {"type": "json_object"}),
        ("logprobs", True),
        ("stop", ["\n"]),
        ("stop", "\n"),
    ],
)
def test_what_would_change_the_answers_meaning_is_refused(member: str, value: Any) -> None:
    with pytest.raises(InvalidRequest, match="This model's upstream has no ") as caught:
        request_of(HI, **{member: value})
    assert caught.value.param == member


def test_members_that_ask_for_nothing_are_left_out() -> None:
    nothing = {"tools": [], "n": 1, "response_format": {"type": "text"}, "logprobs": False, "stop": None}
    assert request_of(HI, **nothing) == request_of(HI) == request_of(HI, **dict.fromkeys(nothing))


def test_newer_limit_counts_unless_it_is_null() -> None:
    assert request_of(HI, max_tokens=5, max_completion_tokens=9)["max_tokens"] == 9
    assert request_of(HI, max_tokens=5, max_completion_tokens=None)["max_tokens"] == 5


def test_stream_has_the_id_of_its_messages_and_ends_with_its_body() -> None:
    stream = PlainSse().chat_stream({"model": "m"})
    chunks = [
        *stream.event("", '{"text": "a", "message_id": "7"}'),
        *stream.event("", '{"text": " b", "message_id": "7"}'),
        *stream.end(),
    ]
    assert {chunk["id"] for chunk in chunks} == {"chatcmpl-7"}
    assert [chunk["choices"][0]["delta"].get("content") for chunk in chunks] == ["a", " b", None]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, "stop"]


def test_stream_without_ids_has_one_of_its_own() -> None:
    stream = PlainSse().chat_stream({"model": "m"})
    assert {chunk["id"] for chunk in (*stream.event("", '{"text": "a"}'), *stream.end())} == {stream.id}


@pytest.mark.parametrize(("code", "status"), [(404, 404), (500, 500), (200, 502), ("x", 502), (None, 502)], ids=str)
def test_error_in_an_answer_of_200_is_one(code: Any, status: int) -> None:
    with pytest.raises(ApiError, match="why") as caught:
        PlainSse().chat_answer({"model": "m"}, {"code": code, "msg": "why"})
    assert caught.value.status == status
