import base64
import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.embedding_answer import Part, join, read_part, to_base64
from proxy.errors import UpstreamUnavailable


def answer(*embeddings: Any, **members: Any) -> bytes:
    data = [{"object": "embedding", "index": at, "embedding": item} for at, item in enumerate(embeddings)]
    return json.dumps({"object": "list", "data": data, "model": "m", **members}).encode()


def decoded(text: str) -> list[float]:
    raw = base64.b64decode(text, validate=True)
    return list(struct.unpack(f"<{len(raw) // 4}f", raw))


def test_floats_become_little_endian_float32() -> None:
    [item] = json.loads(to_base64(answer([1.0, -2.5])))["data"]
    assert item["embedding"] == base64.b64encode(b"\x00\x00\x80\x3f\x00\x00\x20\xc0").decode()


_FLOATS = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=8)


@given(st.lists(_FLOATS, min_size=1, max_size=4))
def test_every_float32_comes_back_as_it_was(embeddings: list[list[float]]) -> None:
    items = json.loads(to_base64(answer(*embeddings)))["data"]
    assert [decoded(item["embedding"]) for item in items] == embeddings


def test_whole_numbers_are_floats_too() -> None:
    [item] = json.loads(to_base64(answer([1, 0, -1])))["data"]
    assert decoded(item["embedding"]) == [1.0, 0.0, -1.0]


def test_all_other_members_are_kept() -> None:
    before = answer([1.0], usage={"prompt_tokens": 3}, x_unknown="ä")
    after = json.loads(to_base64(before))
    expected = json.loads(before)
    expected["data"][0]["embedding"] = after["data"][0]["embedding"]
    assert after == expected
    assert list(after) == list(expected)


@pytest.mark.parametrize(
    "untouched",
    [
        pytest.param(b'{"data": [{"embedding": "AACAPw=="}],\n "a":1e2}', id="base64 already"),
        pytest.param(b'{"data":[]}', id="no embeddings"),
        pytest.param(b'{"error": "x"}', id="something else"),
        pytest.param(b"", id="empty"),
    ],
)
def test_answer_without_floats_crosses_byte_for_byte(untouched: bytes) -> None:
    assert to_base64(untouched) == untouched


def test_floats_are_found_with_blanks_before_them() -> None:
    after = json.loads(to_base64(b'{"data": [{"embedding" :\n [1.0]}]}'))
    assert decoded(after["data"][0]["embedding"]) == [1.0]


def test_embeddings_that_are_base64_already_stay_among_floats() -> None:
    after = json.loads(to_base64(answer("AACAPw==", [1.0])))
    assert [item["embedding"] for item in after["data"]] == ["AACAPw==", "AACAPw=="]


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(b'{"data":[{"embedding":[1.0', id="cut"),
        pytest.param(b'{"data":[{"embedding":[null]}]}', id="null in it"),
        pytest.param(b'{"data":[{"embedding":["a"]}]}', id="text in it"),
        pytest.param(b'{"data":[{"embedding":[[1.0]]}]}', id="list in it"),
        pytest.param(b'{"data":[{"embedding":[1' + b"0" * 400 + b"]}]}", id="number beyond a float"),
        pytest.param(b'[{"embedding":[1.0]}]', id="a list"),
        pytest.param(b'{"embedding":[1.0]}', id="no data"),
        pytest.param(b'{"data":null,"embedding":[1.0]}', id="data is null"),
        pytest.param(b'{"data":["a"],"embedding":[1.0]}', id="entry is a text"),
        pytest.param(b'{"data":[{}],"embedding":[1.0]}', id="entry without embedding"),
    ],
)
def test_answer_that_cannot_be_read_is_the_upstreams_fault(broken: bytes) -> None:
    with pytest.raises(UpstreamUnavailable):
        to_base64(broken)


def test_members_that_look_like_embeddings_stay_as_they_are() -> None:
    text = '"embedding": [1.0]'
    before = json.dumps(
        {"note": text, '"embedding': [2.0], "data": [{"embedding": [1.0], "x": {"embedding": [3.0]}, "n": text}]}
    ).encode()
    after = json.loads(to_base64(before))
    expected = json.loads(before)
    expected["data"][0]["embedding"] = after["data"][0]["embedding"]
    assert after == expected
    assert decoded(after["data"][0]["embedding"]) == [1.0]


# The answer to one part


def read(raw: bytes, *, first: int = 0, count: int = 1, as_base64: bool = False) -> list[dict[str, Any]]:
    """The entries of a part, as a caller would find them in the whole."""
    part = read_part(raw, first=first, count=count, as_base64=as_base64)
    return list(json.loads(join([part]))["data"])


@pytest.mark.parametrize("first", [0, 20])
@pytest.mark.parametrize("as_base64", [False, True], ids=["floats", "base64"])
def test_entries_stand_by_their_index_which_is_counted_on(first: int, as_base64: bool) -> None:
    raw = (
        b'{"data": [{"index": 2, "embedding": [2.0]}, {"index": 0, "embedding": [0]}, {"embedding": [1], "index": 1}]}'
    )
    entries = read(raw, first=first, count=3, as_base64=as_base64)
    assert [entry["index"] for entry in entries] == [first, first + 1, first + 2]
    vectors = [decoded(entry["embedding"]) if as_base64 else entry["embedding"] for entry in entries]
    assert vectors == [[0.0], [1.0], [2.0]]


def test_digits_of_floats_cross_as_they_came() -> None:
    part = read_part(
        b'{"data": [{"index": 0, "embedding" :\n[1.50, -2e-7,0.12345678901234567890]}]}',
        first=0,
        count=1,
        as_base64=False,
    )
    assert b"[1.50, -2e-7,0.12345678901234567890]" in join([part])


@pytest.mark.parametrize(
    ("embedding", "as_base64", "expected"),
    [
        pytest.param("AACAPw==", True, "AACAPw==", id="base64 as asked"),
        pytest.param("AACAPw==", False, "AACAPw==", id="base64 that nobody asked for"),
        pytest.param([1.0], True, "AACAPw==", id="floats where base64 was asked for"),
        pytest.param([], False, [], id="empty"),
        pytest.param([], True, "", id="empty as base64"),
        pytest.param([[1.0], [2.0]], False, [[1.0], [2.0]], id="one for each model token"),
        pytest.param({"indices": [1], "values": [0.5]}, False, {"indices": [1], "values": [0.5]}, id="sparse"),
        pytest.param(5, False, 5, id="a number"),
    ],
)
def test_embedding_is_as_it_came_or_base64_where_that_was_asked_for(
    embedding: Any, as_base64: bool, expected: Any
) -> None:
    [entry] = read(answer(embedding), as_base64=as_base64)
    assert entry["embedding"] == expected


def test_a_part_may_be_of_both_kinds() -> None:
    entries = read(answer([1.0], "AACAPw==", [1.0]), count=3, as_base64=True)
    assert [entry["embedding"] for entry in entries] == ["AACAPw=="] * 3


def test_what_follows_an_odd_one_is_read_too() -> None:
    entries = read(answer([1.0], [[2.0]], [3.0]), count=3)
    assert [entry["embedding"] for entry in entries] == [[1.0], [[2.0]], [3.0]]


@pytest.mark.parametrize("end", [b"", b"]"], ids=["without an end", "with one end"])
def test_time_is_linear_for_an_answer_of_beginnings(end: bytes) -> None:
    with pytest.raises(UpstreamUnavailable):  # after minutes, if it were not
        read(b'{"data": [' + b'"embedding":[' * 500_000 + end)


def test_all_other_members_of_an_entry_are_kept() -> None:
    raw = b'{"data": [{"object": "embedding", "embedding": [1.0], "x_unknown": {"embedding": [9.5]}, "index": 0}]}'
    assert read(raw) == json.loads(raw)["data"]


_JSON = st.recursive(
    st.none() | st.integers(-5, 5) | st.text(st.sampled_from('ab"[]\\: embding,')),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["embedding", '"embedding', "data", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(_JSON, _JSON, st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.integers(), max_size=4))
def test_whatever_stands_beside_the_floats_nothing_is_changed(before: Any, after: Any, floats: list[float]) -> None:
    entries = [{"embedding": floats, "index": 0, "x": after}, {"x": before, "index": 1, "embedding": floats}]
    raw = json.dumps({"x": before, "data": entries, "y": after}).encode()
    document = json.loads(join([read_part(raw, first=0, count=2, as_base64=False)]))
    assert document == json.loads(raw)


@pytest.mark.parametrize(
    "indexes",
    [
        pytest.param([], id="none"),
        pytest.param([0, 1], id="too few"),
        pytest.param([0, 1, 2, 3], id="too many"),
        pytest.param([0, 1, 1], id="one twice"),
        pytest.param([0, 1, 2, 2], id="one twice more"),
        pytest.param([0, 0, 0], id="all the first"),
        pytest.param([1, 2, 3], id="counted from one"),
        pytest.param([0, 1, 5], id="beyond the end"),
        pytest.param([-1, 0, 1], id="below zero"),
        pytest.param([0, 1, "2"], id="a text"),
        pytest.param([0, 1, None], id="null"),
    ],
)
def test_part_without_one_embedding_for_each_input_is_an_error(indexes: list[Any]) -> None:
    # Elsewhere the embeddings of other texts would stand in their places, and nobody would see it.
    data = [{"index": index, "embedding": [1.0]} for index in indexes]
    with pytest.raises(UpstreamUnavailable) as caught:
        read(json.dumps({"data": data}).encode(), count=3)
    assert caught.value.cause == "not one embedding for each of 3 inputs"


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
        pytest.param(b'{"data": [{"embedding": [1.0]}]}', id="entry without index"),
        pytest.param(b'{"data": [{"index": [0], "embedding": [1.0]}]}', id="index is a list"),
        pytest.param(b'{"data": [{"index": 0}]}', id="entry without embedding"),
        pytest.param(b'{"data": [{"index": 0, "embedding": [1.0', id="cut"),
        pytest.param(b'{"data": [{"index": 0, "embedding": [1.0,,2]}]}', id="no JSON among the floats"),
        pytest.param(b'{"data": [{"index": 0, "embedding": [null]}]}', id="null among the floats"),
    ],
)
@pytest.mark.parametrize("as_base64", [False, True], ids=["floats", "base64"])
def test_part_that_cannot_be_read_is_the_upstreams_fault(broken: bytes, as_base64: bool) -> None:
    with pytest.raises(UpstreamUnavailable):
        read(broken, as_base64=as_base64)


# Several parts as one


def joined(*answers: bytes) -> dict[str, Any]:
    parts: list[Part] = []
    for raw in answers:
        count = len(json.loads(raw)["data"])
        parts.append(read_part(raw, first=sum(map(_count, parts)), count=count, as_base64=False))
    return dict(json.loads(join(parts)))


def _count(part: Part) -> int:
    return len(json.loads(b"[" + part.entries + b"]"))


def test_joined_embeddings_are_in_order() -> None:
    data = joined(answer([0.0], [0.1]), answer([0.2]))["data"]
    assert [(item["index"], item["embedding"]) for item in data] == [(0, [0.0]), (1, [0.1]), (2, [0.2])]


def test_joined_answer_has_the_members_of_the_first_in_their_order() -> None:
    first = b'{"x_unknown": {"data": []}, "data": [{"index": 0, "embedding": "a"}], "model": "first", "object": "list"}'
    document = joined(first, answer("b", model="second"))
    assert list(document) == ["x_unknown", "data", "model", "object"]
    assert (document["model"], document["x_unknown"]) == ("first", {"data": []})


@pytest.mark.parametrize(
    ("usages", "expected"),
    [
        pytest.param(
            [{"prompt_tokens": 3, "total_tokens": 4}, {"prompt_tokens": 10, "total_tokens": 10}],
            {"prompt_tokens": 13, "total_tokens": 14},
            id="counts",
        ),
        pytest.param(
            [{"details": {"cached_tokens": 2}}, {"details": {"cached_tokens": 5, "x": 1}}],
            {"details": {"cached_tokens": 7, "x": 1}},
            id="details",
        ),
        pytest.param([{"cost": 0.25}, {"cost": 0.5}], {"cost": 0.75}, id="a cost"),
        pytest.param([None, {"prompt_tokens": 2}], {"prompt_tokens": 2}, id="null first"),
        pytest.param([[1], {"prompt_tokens": 2}], {"prompt_tokens": 2}, id="a list first"),
        pytest.param([{"prompt_tokens": 2}, "many"], {"prompt_tokens": 2}, id="a text last"),
        pytest.param([{"prompt_tokens": None}, {"prompt_tokens": 2}], {"prompt_tokens": 2}, id="a count that is null"),
        pytest.param([{"prompt_tokens": "3"}, {"prompt_tokens": 2}], {"prompt_tokens": 2}, id="a count that is a text"),
        pytest.param(
            [{"prompt_tokens": {}}, {"prompt_tokens": 2}], {"prompt_tokens": 2}, id="a count that is an object"
        ),
        pytest.param([None, None], None, id="null"),
    ],
)
def test_usage_is_added_up(usages: list[Any], expected: Any) -> None:
    first, second = usages
    assert joined(answer("a", usage=first), answer("b", usage=second))["usage"] == expected


def test_no_usage_stays_no_usage() -> None:
    assert "usage" not in joined(answer("a"), answer("b"))
