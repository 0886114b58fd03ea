import base64
import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.embedding_answer import to_base64
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
