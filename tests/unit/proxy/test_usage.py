"""The usage of an answer, found in its bytes: the last object of that name, and none that is text or odd."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.usage import HEAD_BYTES, TAIL_BYTES, TOKENS_MOST, read_usage

USAGE = b'"usage": {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21}'
NO_FRAME_USAGE = b'data: {"choices": [{"delta": {"content": "a"}}], "usage": null}\n\n'
FILLER = b'"content": "' + b"x" * TAIL_BYTES + b'"'


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param(b'{"choices": [], ' + USAGE + b"}", (9, 12), id="chat completion"),
        pytest.param(b'{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":12}}', (9, 12), id="no blanks"),
        pytest.param(b'{\n "usage" :\n\t{ "prompt_tokens" : 9 , "completion_tokens" : 12 }\n}\n', (9, 12), id="blanks"),
        pytest.param(
            b'{"usage": {"completion_tokens": 12, "completion_tokens_details": {"reasoning_tokens": 3}, '
            b'"prompt_tokens": 9, "cost": {"of": {"prompt": 0.1}}, "note": "}\\"{"}, "id": "a"}',
            (9, 12),
            id="details and text within",
        ),
        pytest.param(b'{"data": [], "usage": {"prompt_tokens": 9, "total_tokens": 9}}', (9, 0), id="embeddings"),
        pytest.param(b'{"usage": {"input_tokens": 9, "output_tokens": 12}}', (9, 12), id="responses"),
        pytest.param(
            b'event: response.completed\ndata: {"type": "response.completed", "response": {"output": [], "usage": '
            b'{"input_tokens": 9, "output_tokens": 12}, "user": null}}\n\n',
            (9, 12),
            id="responses stream",
        ),
        pytest.param(
            NO_FRAME_USAGE * 3 + b'data: {"choices": [], ' + USAGE + b"}\n\ndata: [DONE]\n\n",
            (9, 12),
            id="closing frame of a stream",
        ),
        pytest.param(b"data: {" + USAGE + b"}\n\n" + NO_FRAME_USAGE, (9, 12), id="null after it"),
        pytest.param(
            b'data: {"usage": {"prompt_tokens": 9, "completion_tokens": 1}}\n\ndata: {' + USAGE + b"}\n\n",
            (9, 12),
            id="the last of running totals",
        ),
        pytest.param(b'data: {"x_groq": {"id": "a", ' + USAGE + b"}}\n\n", (9, 12), id="one level down"),
        pytest.param(b"{" + FILLER + b", " + USAGE + b"}", (9, 12), id="behind a long content"),
        pytest.param(b"{" + USAGE + b", " + FILLER + b"}", (9, 12), id="before a long content"),
        pytest.param(b'ents": 1}}, ' + USAGE + b"}", (9, 12), id="tail that begins anywhere"),
        pytest.param(b'{"usage": {"prompt_tokens": 0, "completion_tokens": 0}}', (0, 0), id="zero"),
        pytest.param(b'{"usage": {"prompt_tokens": %d}}' % TOKENS_MOST, (TOKENS_MOST, 0), id="the most"),
    ],
)
def test_usage_is_read(answer: bytes, expected: tuple[int, int]) -> None:
    assert read_usage(answer) == expected


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{}", id="none"),
        pytest.param(b"data: [DONE]\n\n", id="end of a stream"),
        pytest.param(b'{"usage": null}', id="null"),
        pytest.param(b'{"usage": []}', id="array"),
        pytest.param(b'{"usage": {}}', id="no members"),
        pytest.param(b'{"usage": {"total_tokens": 3}}', id="total only"),
        pytest.param(b'{"usage": {"completion_tokens": 3}}', id="completion only"),
        pytest.param(b'{"usage": {"prompt_tokens": 9, "completion_tokens": 12', id="cut"),
        pytest.param(b'age": {"prompt_tokens": 9, "completion_tokens": 12}}', id="begins before the tail"),
        pytest.param(b'{"usage": {"prompt_tokens": 9 "completion_tokens": 12}}', id="no JSON"),
        pytest.param(b'{"usage": {"prompt_tokens": 9, "a": [{"b": {"c": {"d": 1}}}]}}', id="too deep"),
        pytest.param(b'{"usage": "usage"}', id="text"),
        pytest.param(b'{"a": ["usage", {"prompt_tokens": 9}]}', id="no key"),
        pytest.param(b'{"a\\"usage": {"prompt_tokens": 9}}', id="end of another key"),
        pytest.param(b"{" + FILLER + b", " + USAGE + b", " + FILLER + b"}", id="in the midst of a long answer"),
    ],
)
def test_no_usage_is_read(answer: bytes) -> None:
    assert read_usage(answer) is None


@pytest.mark.parametrize(
    "value", ["null", "-1", "true", "1.0", "1e3", '"9"', str(TOKENS_MOST + 1), "[]", "{}", "9" * 400]
)
@pytest.mark.parametrize("member", ["prompt_tokens", "completion_tokens", "input_tokens", "output_tokens"])
def test_a_figure_that_is_no_count_makes_it_none(member: str, value: str) -> None:
    other = {"prompt": "completion", "completion": "prompt", "input": "output", "output": "input"}[member[:-7]]
    assert read_usage(f'{{"usage": {{"{other}_tokens": 9, "{member}": {value}}}}}'.encode()) is None


@pytest.mark.parametrize("head", [b"", b'"id": "a", '], ids=["at the start", "inside"])
def test_text_of_the_model_never_passes_for_usage(head: bytes) -> None:
    for text in ('"usage": {"prompt_tokens": 1}', '{"usage": {"prompt_tokens": 1}}', '\\"usage": {"prompt_tokens": 1}'):
        answer = b"{" + head + b'"content": ' + json.dumps(text).encode() + b"}"
        assert read_usage(answer) is None
        assert read_usage(answer[:-1] + b", " + USAGE + b"}") == (9, 12)
        assert read_usage(b"{" + USAGE + b", " + answer[1:]) == (9, 12)


@pytest.mark.parametrize(
    "before", [0, HEAD_BYTES - len(USAGE), HEAD_BYTES - len(USAGE) + 1], ids=["first", "at", "past"]
)
def test_the_head_is_looked_at_as_far_as_it_goes(before: int) -> None:
    answer = b" " * before + USAGE + FILLER
    assert read_usage(answer) == ((9, 12) if before + len(USAGE) <= HEAD_BYTES else None)


@pytest.mark.parametrize("behind", [TAIL_BYTES - len(USAGE), TAIL_BYTES - len(USAGE) + 1], ids=["at", "past"])
def test_the_tail_is_looked_at_as_far_as_it_goes(behind: int) -> None:
    answer = b" " * HEAD_BYTES + USAGE + b" " * behind
    assert read_usage(answer) == ((9, 12) if behind + len(USAGE) <= TAIL_BYTES else None)


_COUNTS = st.integers(0, TOKENS_MOST)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_SCALARS = st.none() | st.integers(-1000, 1000) | st.text(max_size=20)
_DETAILS = st.dictionaries(st.text(max_size=8), _SCALARS | st.dictionaries(st.text(max_size=8), _SCALARS), max_size=3)


@given(
    prompt=_COUNTS,
    completion=_COUNTS,
    details=_DETAILS,
    before=st.dictionaries(st.text(max_size=8), _JSON, max_size=3),
    after=st.dictionaries(st.text(max_size=8), _JSON, max_size=3),
    ascii_only=st.booleans(),
)
def test_usage_is_read_whatever_stands_around_it(
    prompt: int,
    completion: int,
    details: dict[str, Any],
    before: dict[str, Any],
    after: dict[str, Any],
    ascii_only: bool,
) -> None:
    usage = {"prompt_tokens_details": details, "prompt_tokens": prompt, "completion_tokens": completion}
    answer = {**before, "usage": usage, **{f"after {name}": value for name, value in after.items()}}
    assert read_usage(json.dumps(answer, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")) == (
        prompt,
        completion,
    )


@given(text=st.text() | st.from_regex(r'[\\"{}: ]*"usage"[\\"{}: ]*\{"prompt_tokens": 1\}.*'))
def test_no_content_passes_for_usage(text: str) -> None:
    assert read_usage(json.dumps({"content": text, "list": [text]}).encode()) is None


@given(st.lists(st.sampled_from([b'"usage"', b":", b"{", b"}", b'"', b"\\", b" ", b"1", b'"prompt_tokens":', b","])))
def test_any_bytes_give_counts_or_none(pieces: list[bytes]) -> None:
    read = read_usage(b"".join(pieces))
    assert read is None or all(0 <= count <= TOKENS_MOST for count in read)
