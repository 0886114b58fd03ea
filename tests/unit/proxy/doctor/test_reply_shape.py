import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.doctor.reply_shape import DEPTH_MOST, POINTERS_MOST, Outline, likely_expiry, likely_token, outline_of


def outline(document: object) -> Outline:
    return outline_of(json.dumps(document).encode(), str.isprintable)


def test_each_member_has_its_pointer_and_type_outer_ones_first() -> None:
    document = {"data": {"token": "t", "list": [{"a": 1}, {"b": 2}]}, "ok": True, "n": 1.5, "no": None, "e": ""}
    assert outline(document).pointers == {
        "/data": "object",
        "/ok": "boolean",
        "/n": "number",
        "/no": "null",
        "/e": "empty string",
        "/data/token": "string",
        "/data/list": "array",
        "/data/list/0": "object",
        "/data/list/0/a": "number",
    }


@pytest.mark.parametrize(("document", "kind"), [("t", "string"), ([], "array"), (None, "null"), (3, "number")])
def test_reply_that_is_no_object_is_the_whole_pointer(document: object, kind: str) -> None:
    assert outline(document).pointers == {"": kind}


def test_empty_object_has_no_pointers() -> None:
    assert outline({}) == Outline({})


def test_names_are_escaped_as_rfc_6901_has_it() -> None:
    assert list(outline({"a/b": 1, "c~d": 2, "": 3}).pointers) == ["/a~1b", "/c~0d", "/"]


def test_odd_names_are_counted_and_nothing_under_them_is_shown() -> None:
    shape = outline({"plain": 1, "od\x00d": {"inner": 1}, "also\x1b": 2})
    assert (shape.pointers, shape.odd_names) == ({"/plain": "number"}, 2)


def test_what_is_too_deep_is_cut() -> None:
    document: object = "s"
    for _ in range(DEPTH_MOST + 1):
        document = {"a": document}
    shape = outline(document)
    assert (len(shape.pointers), shape.is_cut) == (DEPTH_MOST, True)


@pytest.mark.parametrize(("count", "is_cut"), [(POINTERS_MOST, False), (POINTERS_MOST + 1, True)])
def test_only_so_many_are_shown(count: int, is_cut: bool) -> None:
    shape = outline({f"m{number}": number for number in range(count)})
    assert (len(shape.pointers), shape.is_cut) == (POINTERS_MOST, is_cut)


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"a": ', b"[" * 100_000, b"\xff"])
def test_what_is_no_json_is_told_as_such(body: bytes) -> None:
    with pytest.raises(ValueError):
        outline_of(body, str.isprintable)


_JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(alphabet="V"),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(alphabet="ab/~"), inner),
)


@given(_JSON)
def test_no_value_is_ever_in_it(document: object) -> None:
    shape = outline(document)
    assert "V" not in "".join(shape.pointers) + "".join(shape.pointers.values())
    assert len(shape.pointers) <= POINTERS_MOST


@pytest.mark.parametrize(
    ("document", "found"),
    [
        pytest.param({"data": {"access_token": "t"}}, "/data/access_token", id="deeper"),
        pytest.param({"accessToken": "t"}, "/accessToken", id="another-spelling"),
        pytest.param({"token": "t", "data": {"access_token": "u"}}, "/data/access_token", id="same-name-first"),
        pytest.param({"jwt": "t", "token": "u"}, "/token", id="likelier-name-first"),
        pytest.param({"list": [{"token": "t"}]}, "/list/0/token", id="in-an-array"),
        pytest.param({"access_token": "t"}, None, id="where-the-config-says"),
        pytest.param({"token": {"x": 1}, "Token": 5}, None, id="no-string"),
        pytest.param({"data": {"token": ""}}, None, id="empty"),
        pytest.param({"key": "t"}, None, id="unknown-name"),
    ],
)
def test_token_is_guessed_by_its_name(document: object, found: str | None) -> None:
    assert likely_token(outline(document), "/access_token") == found


@pytest.mark.parametrize(
    ("document", "found"),
    [
        ({"data": {"expires_in": 5}}, "/data/expires_in"),
        ({"expiresIn": "300"}, "/expiresIn"),
        ({"ttl": 5}, "/ttl"),
        ({"expires_in": 5}, None),
        ({"expires": {"at": 5}}, None),
    ],
)
def test_expiry_is_guessed_by_its_name(document: object, found: str | None) -> None:
    assert likely_expiry(outline(document), "/expires_in") == found
