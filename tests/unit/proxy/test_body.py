import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.body import LONG_BYTES, MARKS_MOST, changed_members, read_body, rewrite
from proxy.errors import InvalidJson, InvalidRequest

# Stands in bodies that are refused: no error text may repeat it.
MARK = "s3cret-mark"

_TEXT = st.text(st.characters(codec="utf-8"))
_NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
_JSON = st.recursive(
    st.none() | st.booleans() | _NUMBERS | _TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=10,
)
_MEMBERS = st.builds(
    lambda others, model, stream: {**others, "model": model, **({} if stream is None else {"stream": stream})},
    st.dictionaries(_TEXT.filter(lambda name: name != "stream"), _JSON, max_size=4),
    st.text(st.characters(codec="utf-8"), min_size=1),
    st.none() | st.booleans(),
)
_SPELLINGS = st.sampled_from(
    [
        lambda members: json.dumps(members),
        lambda members: json.dumps(members, ensure_ascii=False),
        lambda members: json.dumps(members, separators=(",", ":")),
        lambda members: "\r\n\t " + json.dumps(members, indent=3) + "\n",
    ]
)


def body_of(**members: Any) -> bytes:
    return json.dumps({"model": "m", **members}).encode()


# For any body


@given(_MEMBERS, _SPELLINGS)
def test_body_crosses_byte_for_byte_where_nothing_is_to_change(members: dict[str, Any], spell: Any) -> None:
    raw = spell(members).encode()
    body = read_body(raw)
    assert (body.members, body.model, body.stream) == (members, members["model"], bool(members.get("stream")))
    absent = ["".join(members) + "x"]
    assert rewrite(body, model=body.model, strip_fields=absent, set_fields=dict.fromkeys(members, 1)) == raw


@given(_MEMBERS, _TEXT, st.lists(_TEXT, max_size=3), st.dictionaries(_TEXT, _JSON, max_size=3))
def test_rewriting_changes_only_what_is_asked_for(
    members: dict[str, Any], model: str, strip: list[str], added: dict[str, Any]
) -> None:
    strip = [name for name in [*strip, *list(members)[:1]] if name != "model"]
    raw = json.dumps(members).encode()
    sent = json.loads(rewrite(read_body(raw), model=model, strip_fields=strip, set_fields=added))
    expected = {**members, **{name: value for name, value in added.items() if name not in members}, "model": model}
    assert sent == {name: value for name, value in expected.items() if name not in strip or name not in members}


@given(st.binary(max_size=60))
def test_any_bytes_are_a_body_or_a_bad_request(raw: bytes) -> None:
    with contextlib.suppress(InvalidJson, InvalidRequest):
        assert read_body(raw).raw == raw


# What is refused


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b" ", id="blank"),
        pytest.param(b'{"model":"m"', id="cut"),
        pytest.param(b'{"model":"m"}x', id="trailing bytes"),
        pytest.param(b'{"model":"m"}{"model":"m"}', id="two objects"),
        pytest.param(b'{"model":"m",}', id="trailing comma"),
        pytest.param(b"{'model':'m'}", id="single quotes"),
        pytest.param(b'{model:"m"}', id="name without quotes"),
        pytest.param(b'{"model":"m"/**/}', id="comment"),
        pytest.param(b"model=m&stream=true", id="form"),
        pytest.param('{"model":"m"}'.encode("utf-16"), id="UTF-16"),
        pytest.param('{"model":"m"}'.encode("utf-32"), id="UTF-32"),
        pytest.param(b'\xef\xbb\xbf{"model":"m"}', id="byte order mark"),
        pytest.param(b'{"model":"m","a":"\xff"}', id="not UTF-8"),
        pytest.param(b'{"model":"m","a":"caf\xe9"}', id="Latin-1"),
        pytest.param(b'{"model":"m","a":"\xed\xa0\x80"}', id="surrogate in UTF-8"),
        pytest.param(b'{"model":"m","a":"\xc0\x80"}', id="overlong NUL"),
        pytest.param(b'{"model":"m","a":"\\ud800"}', id="lone high surrogate"),
        pytest.param(b'{"model":"m","a":"\\udc00 and on"}', id="lone low surrogate"),
        pytest.param(b'{"model":"m","a":"\\ud800abcdefgh"}', id="high surrogate before a text"),
        pytest.param(b'{"model":"m","a":"\\ud800\\ud800"}', id="two high surrogates"),
        pytest.param(b'{"model":"m","\\ud800":1}', id="lone surrogate in a name"),
        pytest.param(b'{"model":"m","a":"\x00"}', id="NUL"),
        pytest.param(b'{"model":"m","a":"\n"}', id="line end in a text"),
        pytest.param(b'{"model":"m","a":NaN}', id="NaN"),
        pytest.param(b'{"model":"m","a":Infinity}', id="Infinity"),
        pytest.param(b'{"model":"m","a":-Infinity}', id="-Infinity"),
        pytest.param(b'{"model":"m","a":01}', id="leading zero"),
        pytest.param(b'{"model":"m","a":+1}', id="plus"),
        pytest.param(b'{"model":"m","a":.5}', id="no digit before the point"),
        pytest.param(b'{"model":"m","a":0x10}', id="hexadecimal"),
        pytest.param(b'{"model":"m","a":1e309}', id="infinite"),
        pytest.param(b'{"model":"m","a":-1e309}', id="minus infinite"),
        pytest.param(b'{"model":"m","a":[0.5,1e309]}', id="infinite in a list"),
        pytest.param(b'{"model":"m","a":[[0.5],[-1e309]]}', id="infinite in a list of lists"),
        pytest.param(b'{"model":"m","a":[{"b":1e309}]}', id="infinite in an object in a list"),
        pytest.param(b'{"model":"m","a":{"b":{"c":1e309}}}', id="infinite in an object"),
        pytest.param(b'{"model":"m","a":' + b"9" * 5000 + b"}", id="5,000 digits"),
        pytest.param(b'{"model":"m","a":' + b"9" * 5000 + b".0}", id="5,000 digits and a point"),
        pytest.param(b'{"model":"m","model":"n"}', id="model twice"),
        pytest.param(b'{"model":"m","model":"m"}', id="the same model twice"),
        pytest.param(b'{"model":"m","mod\\u0065l":"n"}', id="model twice, once in escapes"),
        pytest.param(b'{"model":"m","a":{"b":1,"b":2}}', id="a member twice further in"),
        pytest.param(b'{"model":"m","a":[{"b":1,"b":2}]}', id="a member twice in a list"),
        pytest.param(b'{"model":"m","a":' + b"[" * 100_000, id="nested 100,000 deep, open"),
        pytest.param(b'{"model":"m","a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", id="nested 100,000 deep"),
        pytest.param(b'{"model":"m","a":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001, id="objects 100,000 deep"),
    ],
)
def test_body_that_is_not_strictly_json_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidJson) as caught:
        read_body(raw)
    assert caught.value.status == 400
    assert caught.value.message.startswith("The request body is not valid JSON: ")


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        pytest.param(b'{"model":"m","a":1e309}', "a number is too large", id="number"),
        pytest.param(b'{"model":"m","model":"n"}', "a member is given twice at line 1 column", id="twice"),
        pytest.param(b'{"model":"m"}x', "trailing characters at line 1 column 14", id="trailing"),
        pytest.param(b'{"model":"m",\n"a":nope}', "at line 2 column", id="place"),
    ],
)
def test_error_names_the_fault(raw: bytes, fault: str) -> None:
    with pytest.raises(InvalidJson) as caught:
        read_body(raw)
    assert fault in caught.value.message


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param('{"model":"m","MARK":1,"MARK":2}', id="name given twice"),
        pytest.param('{"model":"m","MARK at line 9":1,"MARK at line 9":2}', id="name that looks like a place"),
        pytest.param('{"model":"m","a":MARK}', id="bare word"),
        pytest.param('{"model":"m","a":"MARK', id="open text"),
        pytest.param('{"model":"m"}MARK', id="behind"),
        pytest.param('{"model":["MARK"]}', id="model"),
        pytest.param('{"model":"m","stream":"MARK"}', id="stream"),
    ],
)
def test_error_repeats_nothing_of_the_body(raw: str) -> None:
    with pytest.raises((InvalidJson, InvalidRequest)) as caught:
        read_body(raw.replace("MARK", MARK).encode())
    assert MARK not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize("raw", [b"[]", b"null", b"1", b'"text"', b"true", b'[{"model":"m"}]'], ids=repr)
def test_body_that_is_no_object_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidRequest):
        read_body(raw)


@pytest.mark.parametrize("model", ["", None, 1, True, ["m"], {"a": 1}], ids=repr)
def test_model_that_is_no_text_is_refused(model: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_body(body_of(model=model))
    assert caught.value.param == "model"


def test_body_without_a_model_is_refused() -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_body(b'{"messages":[],"Model":"m"}')
    assert caught.value.param == "model"


@pytest.mark.parametrize("stream", [0, 1, "true", "", [], {}], ids=repr)
def test_stream_that_is_no_truth_value_is_refused(stream: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_body(body_of(stream=stream))
    assert caught.value.param == "stream"


# What is taken


@pytest.mark.parametrize(("stream", "expected"), [(True, True), (False, False), (None, False)], ids=repr)
def test_stream_flag_is_read(stream: bool | None, expected: bool) -> None:
    assert read_body(body_of(stream=stream)).stream is expected


def test_stream_is_false_where_nothing_is_said() -> None:
    assert read_body(b'{"model":"m"}').stream is False


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"1e308", id="large"),
        pytest.param(b"-1.7976931348623157e308", id="largest"),
        pytest.param(b"5e-324", id="smallest"),
        pytest.param(b"1e-400", id="too small to tell from 0"),
        pytest.param(b"18446744073709551616", id="2^64"),
        pytest.param(b"9" * 4000, id="4,000 digits"),
        pytest.param(b'"\\ud83d\\ude00"', id="pair of surrogates"),
        pytest.param(b'"\\u0000\\n"', id="escaped control characters"),
        pytest.param("\u2028😀".encode().join([b'"', b'"']), id="any character"),
        pytest.param(b"[" * 200 + b"]" * 200, id="nested 200 deep"),
    ],
)
def test_odd_but_good_value_is_taken_and_passed_on(value: bytes) -> None:
    raw = b'{"model":"m","a":' + value + b"}"
    body = read_body(raw)
    assert rewrite(body, model="m") == raw
    assert json.loads(rewrite(body, model="n")) == {**json.loads(raw), "model": "n"}


def test_nesting_of_more_than_200_is_refused() -> None:
    with pytest.raises(InvalidJson):
        read_body(b'{"model":"m","a":' + b"[" * 201 + b"]" * 201 + b"}")


# What the config changes


@pytest.mark.parametrize("most", [b'"a":1,' * MARKS_MOST, b"[]," * MARKS_MOST, b"{}," * MARKS_MOST, b"[" * MARKS_MOST])
def test_body_that_would_take_long_to_parse_is_refused(most: bytes) -> None:
    with pytest.raises(InvalidRequest, match="too many"):
        read_body(b'{"model":"m","text":"%b","a":[%b0]}' % (b"x" * LONG_BYTES, most))


def test_long_text_and_many_numbers_are_taken() -> None:
    text, numbers = b"word, and word: " * 400_000, b",".join([b"1"] * 1_000_000)
    assert read_body(b'{"model":"m","text":"%b","input":[%b]}' % (text, numbers)).model == "m"


def test_model_gets_the_upstreams_name_in_its_old_place() -> None:
    body = read_body(b'{"a":1,"model":"gpt","b":2}')
    assert list(json.loads(rewrite(body, model="deploy")).items()) == [("a", 1), ("model", "deploy"), ("b", 2)]


def test_stripped_members_are_left_out_at_the_top_only() -> None:
    body = read_body(b'{"model":"m","drop_params":true,"a":{"drop_params":1}}')
    assert json.loads(rewrite(body, model="m", strip_fields=["drop_params", "absent"])) == {
        "model": "m",
        "a": {"drop_params": 1},
    }


def test_member_that_the_config_strips_twice_is_left_out() -> None:
    assert rewrite(read_body(b'{"model":"m","a":1}'), model="m", strip_fields=["a", "a"]) == b'{"model": "m"}'


@pytest.mark.parametrize("given_value", [0, None, False, ""], ids=repr)
def test_member_that_is_there_is_not_set(given_value: object) -> None:
    raw = body_of(user=given_value)
    assert rewrite(read_body(raw), model="m", set_fields={"user": "config"}) == raw


def test_member_that_is_absent_is_set() -> None:
    assert json.loads(rewrite(read_body(b'{"model":"m"}'), model="m", set_fields={"user": {"a": [1]}})) == {
        "model": "m",
        "user": {"a": [1]},
    }


def test_members_stay_the_same_object_where_nothing_changes() -> None:
    body = read_body(b'{"model":"m"}')
    assert changed_members(body, model="m", strip_fields=["a"], set_fields={"model": "n"}) is body.members


def test_rewriting_leaves_the_body_as_it_was() -> None:
    body = read_body(b'{"model":"m","a":1}')
    rewrite(body, model="n", strip_fields=["a"], set_fields={"b": 1})
    assert body.members == {"model": "m", "a": 1}


def test_rewritten_body_is_utf_8_without_escapes() -> None:
    assert rewrite(read_body('{"model":"m","a":"ä😀"}'.encode()), model="n") == '{"model": "n", "a": "ä😀"}'.encode()
