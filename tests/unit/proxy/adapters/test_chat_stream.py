import pytest

from proxy.adapters import ChatStream, usage


def test_first_chunk_of_each_choice_has_the_role() -> None:
    stream = ChatStream({"model": "m"})
    chunks = [stream.chunk({"content": "a"}), stream.chunk({"content": "b"}), stream.chunk({}, index=1)]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    role = {"role": "assistant", "content": ""}
    assert deltas == [{**role, "content": "a"}, {"content": "b"}, role]
    assert [chunk["choices"][0]["index"] for chunk in chunks] == [0, 0, 1]
    assert {(chunk["id"], chunk["model"], chunk["object"], chunk["created"]) for chunk in chunks} == {
        (stream.id, "m", "chat.completion.chunk", stream.created)
    }


def test_two_streams_have_two_ids() -> None:
    assert ChatStream({}).id != ChatStream({}).id


@pytest.mark.parametrize(
    ("options", "is_told"),
    [({"include_usage": True}, True), ({"include_usage": False}, False), (None, False)],
    ids=["asked for", "refused", "null"],
)
def test_usage_is_told_where_it_is_asked_for(options: dict[str, bool] | None, is_told: bool) -> None:
    chunks = ChatStream({"model": "m", "stream_options": options}).usage_chunk(usage(1, 2))
    assert [(chunk["choices"], chunk["usage"]["total_tokens"]) for chunk in chunks] == [([], 3)] * is_told


def test_usage_that_is_unknown_is_not_told() -> None:
    assert ChatStream({"stream_options": {"include_usage": True}}).usage_chunk(None) == []
