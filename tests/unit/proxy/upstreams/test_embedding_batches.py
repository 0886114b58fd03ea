import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import UpstreamUnavailable
from proxy.upstreams.embedding_batches import EmbeddingBatches, join, split


def batches(max_batch: int) -> EmbeddingBatches:
    """One whose parts are never asked."""
    unused: Any = None
    return EmbeddingBatches(unused, None, unused, max_batch=max_batch, concurrency=1, total_s=5)


def answer(embeddings: list[Any], **members: Any) -> bytes:
    """A part's answer, in the shape of OpenAI's."""
    data = [{"object": "embedding", "index": at, "embedding": item} for at, item in enumerate(embeddings)]
    return json.dumps({"object": "list", "data": data, "model": "m", **members}).encode()


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
    parts = split({"input": ["a"] * count}, 3)
    assert [len(json.loads(part)["input"]) for part in parts] == sizes


@given(st.lists(st.one_of(st.text(), st.lists(st.integers())), min_size=1), st.integers(1, 20))
def test_parts_hold_the_whole_input_in_order(texts: list[Any], max_batch: int) -> None:
    parts = [json.loads(part)["input"] for part in split({"input": texts}, max_batch)]
    assert [text for part in parts for text in part] == texts
    assert all(1 <= len(part) <= max_batch for part in parts)


def test_parts_have_all_other_members() -> None:
    body = {"model": "m", "input": ["ä", "b"], "dimensions": 8, "x_unknown": {"a": [1]}}
    for part in split(body, 1):
        members = json.loads(part)
        del members["input"]
        assert members == {"model": "m", "dimensions": 8, "x_unknown": {"a": [1]}}


def test_body_that_is_split_is_not_changed() -> None:
    body = {"model": "m", "input": ["a", "b"]}
    split(body, 1)
    assert body == {"model": "m", "input": ["a", "b"]}


# Joining


def test_joined_embeddings_are_in_order_with_the_index_counted_on() -> None:
    joined = json.loads(join([answer([[0.0], [0.1]]), answer([[0.2]])], 3))
    assert [(item["index"], item["embedding"]) for item in joined["data"]] == [(0, [0.0]), (1, [0.1]), (2, [0.2])]


def test_answer_that_lists_its_embeddings_in_another_order_is_sorted_by_their_index() -> None:
    shuffled = b'{"data": [{"index": 1, "embedding": "b"}, {"index": 0, "embedding": "a"}]}'
    joined = json.loads(join([shuffled, answer(["c"])], 3))
    assert [item["embedding"] for item in joined["data"]] == ["a", "b", "c"]


def test_joined_answer_has_the_members_of_the_first() -> None:
    joined = json.loads(join([answer(["a"], x_unknown=1, model="first"), answer(["b"], model="second")], 2))
    assert (joined["object"], joined["model"], joined["x_unknown"]) == ("list", "first", 1)


def test_members_of_each_embedding_are_kept() -> None:
    one = b'{"data": [{"index": 0, "embedding": "a", "x_unknown": 5}]}'
    assert json.loads(join([one, one], 2))["data"][1] == {"index": 1, "embedding": "a", "x_unknown": 5}


def test_usage_is_added_up() -> None:
    parts = [
        answer(["a"], usage={"prompt_tokens": 3, "total_tokens": 4}),
        answer(["b"], usage={"prompt_tokens": 10, "total_tokens": 10}),
    ]
    assert json.loads(join(parts, 2))["usage"] == {"prompt_tokens": 13, "total_tokens": 14}


@pytest.mark.parametrize("usage", [None, [], 5, "many", [1]], ids=str)
def test_usage_that_is_no_object_is_left_aside(usage: object) -> None:
    joined = json.loads(join([answer(["a"], usage=usage), answer(["b"], usage={"prompt_tokens": 2})], 2))
    assert joined["usage"] == {"prompt_tokens": 2}


@pytest.mark.parametrize("first", [None, "3", {"cached": 1}], ids=str)
def test_count_that_is_no_number_does_not_break_the_sum(first: object) -> None:
    parts = [answer(["a"], usage={"prompt_tokens": first}), answer(["b"], usage={"prompt_tokens": 2})]
    assert json.loads(join(parts, 2))["usage"] == {"prompt_tokens": 2}


def test_no_usage_stays_no_usage() -> None:
    assert "usage" not in json.loads(join([answer(["a"]), answer(["b"])], 2))


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"<html>", id="no JSON"),
        pytest.param(b"[]", id="list"),
        pytest.param(b"null", id="null"),
        pytest.param(b"{}", id="no data"),
        pytest.param(b'{"data": null}', id="data is null"),
        pytest.param(b'{"data": 5}', id="data is a number"),
        pytest.param(b'{"data": ["a"]}', id="entry is a text"),
        pytest.param(b'{"data": [null]}', id="entry is null"),
        pytest.param(b'{"data": [{"embedding": "a"}]}', id="entry without index"),
        pytest.param(b'{"data": [{"index": null}]}', id="index is null"),
        pytest.param(b'{"data": [{"index": "x"}]}', id="index is a text"),
    ],
)
def test_part_that_cannot_be_read_is_an_error(broken: bytes) -> None:
    with pytest.raises(UpstreamUnavailable):
        join([answer(["a"]), broken], 2)


@pytest.mark.parametrize(
    "second",
    [pytest.param([], id="none"), pytest.param(["c"], id="too few"), pytest.param(["c", "d", "e"], id="too many")],
)
def test_part_without_an_embedding_for_each_input_is_an_error(second: list[str]) -> None:
    # Counted on, the embeddings after it would belong to other texts than the caller's.
    with pytest.raises(UpstreamUnavailable):
        join([answer(["a", "b"]), answer(second)], 4)
