from collections.abc import Iterable, Sequence
from io import BytesIO
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.formparser import parse_form_data

from proxy.errors import InvalidRequest
from proxy.form import (
    HEAD_MOST_BYTES,
    MODEL_MOST_BYTES,
    PARTS_MOST,
    FormReader,
    boundary_of,
    rewritten,
)

BOUNDARY = b"----x.7"
TYPE = f"multipart/form-data; boundary={BOUNDARY.decode()}"
FILE = b'form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav'
MODEL = b'form-data; name="model"'

Part = tuple[bytes, bytes]  # a Content-Disposition with the lines behind it, a value


def form(*parts: Part, end: bytes = b"--\r\n") -> bytes:
    delimited = [b"--%b\r\nContent-Disposition: %b\r\n\r\n%b\r\n" % (BOUNDARY, *part) for part in parts]
    return b"".join([*delimited, b"--" + BOUNDARY + end])


def read(*pieces: bytes) -> FormReader:
    """The reader of a whole form that came in these pieces."""
    reader = FormReader(BOUNDARY)
    for piece in pieces:
        reader.feed(piece)
    reader.finish()
    return reader


def cut(raw: bytes, places: Iterable[int]) -> list[bytes]:
    ends = sorted({0, len(raw), *(place % (len(raw) + 1) for place in places)})
    return [raw[start:end] for start, end in pairwise(ends)]


def fields_of(raw: bytes) -> dict[str, list[bytes]]:
    """What werkzeug finds in a form: fields and files by name."""
    environ = {"CONTENT_TYPE": TYPE, "CONTENT_LENGTH": str(len(raw)), "wsgi.input": BytesIO(raw)}
    _, fields, files = parse_form_data(environ)  # type: ignore[arg-type]
    found = {name: [value.encode() for value in values] for name, values in fields.lists()}
    for name, values in files.lists():
        found[name] = [file.read() for file in values]
        for file in values:
            file.close()
    return found


# Bytes that look like a part of a delimiter, and any others.
NEARLY = st.lists(
    st.sampled_from([b"\r", b"\n", b"\r\n", b"-", b"--", b"\r\n--", b"\r\n----x", b"\r\n------x.8", b"x.7", b"\x00"])
    | st.binary(max_size=20),
    max_size=12,
).map(b"".join)
VALUES = NEARLY.filter(lambda value: b"--" + BOUNDARY not in b"\r\n" + value + b"\r\n--x")
OTHERS = st.lists(
    st.tuples(st.sampled_from([FILE, b"form-data; name=x", b'form-data; name="a[]"']), VALUES), max_size=3
)
MODELS = st.text(min_size=1, max_size=20).filter(lambda model: "--" not in model).map(str.encode)
PLACES = st.lists(st.integers(0, 10_000), max_size=12)


# Reading


@given(OTHERS, MODELS, OTHERS, PLACES)
def test_form_is_read_the_same_however_it_is_cut(
    before: list[Part], model: bytes, behind: list[Part], places: list[int]
) -> None:
    raw = form(*before, (MODEL, model), *behind)
    reader = FormReader(BOUNDARY)
    events = [event for piece in cut(raw, places) for event in reader.feed(piece)]
    reader.finish()
    assert reader.model == model.decode()
    assert b"".join(event.raw for event in events) == raw
    parts: list[bytes] = []
    for event in events:
        if event.kind == "part":
            parts.append(b"")
        elif event.kind == "data":
            parts[-1] += event.raw
    assert parts == [value for _, value in [*before, (MODEL, model), *behind]]


@pytest.mark.parametrize("missing", range(1, len(BOUNDARY) + 7))
def test_form_that_ends_before_its_closing_boundary_is_not_whole_wherever_it_is_cut(missing: int) -> None:
    raw = form((MODEL, b"m"), end=b"--")
    with pytest.raises(InvalidRequest, match="ends before its closing boundary"):
        read(raw[:-missing])
    assert read(raw[:-missing], raw[-missing:]).model == "m"


def test_model_is_known_with_the_boundary_behind_it() -> None:
    raw = form((FILE, b"sound"), (MODEL, b"m"))
    reader = FormReader(BOUNDARY)
    for at in range(len(raw)):
        reader.feed(raw[at : at + 1])
        assert (reader.model == "m") == (at >= raw.index(b"\r\nm\r\n") + len(b"\r\nm\r\n--\r\n") + len(BOUNDARY) - 1)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"\r\n" + form((MODEL, b"m")), id="a line end before it"),
        pytest.param(form((MODEL, b"m"), end=b"--"), id="no line end behind it"),
        pytest.param(form((MODEL, b"m"), end=b"--\r\n\r\n"), id="two line ends behind it"),
        pytest.param(form((b"form-data; name=model", b"m")), id="no quotes"),
        pytest.param(form((b'Form-Data;NAME="model" ', b"m")), id="other letters"),
        pytest.param(
            form((b"form-data; name=\"file\"; filename*=utf-8''%C3%BC.wav", b"x"), (MODEL, b"m")), id="RFC 5987"
        ),
        pytest.param(form((b'form-data; name="file"; filename="C:\\a; name=b.wav"', b"x"), (MODEL, b"m")), id="a path"),
        pytest.param(form((b'form-data; name="file"; filename="\xc3\xbc.wav"', b"x"), (MODEL, b"m")), id="UTF-8"),
        pytest.param(form((MODEL + b"\r\nContent-Type: text/plain\r\nContent-Length: 1", b"m")), id="OkHttp"),
        pytest.param(form((MODEL + b"\r\nContent-Transfer-Encoding: 8bit", b"m")), id="Apache HttpClient"),
        pytest.param(form((MODEL + b"\r\nContent-Type: text/plain; charset=US-ASCII", b"m")), id="US-ASCII"),
        pytest.param(form((MODEL + b'\r\nContent-Type: text/plain;charset="UTF-8"', b"m")), id="Spring"),
        pytest.param(form((b"form-data; name=models[]", b"x"), (MODEL, b"m")), id="another array"),
        pytest.param(form((MODEL, b"m"), *[(FILE, b"")] * (PARTS_MOST - 1)), id="as many parts as may be"),
        pytest.param(form((b'form-data; name="a%5B%5D"', b"x"), (MODEL, b"m")), id="aiohttp"),
    ],
)
def test_form_as_clients_send_it_is_read(raw: bytes) -> None:
    assert read(raw).model == "m"
    assert fields_of(raw)["model"] == [b"m"]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        pytest.param(b"", "ends before", id="nothing"),
        pytest.param(b'{"model":"m", "messages":[]}', "does not begin with its boundary", id="JSON"),
        pytest.param(b"preamble\r\n" + form((MODEL, b"m")), "does not begin with its boundary", id="a preamble"),
        pytest.param(form((MODEL, b"m")).replace(b"\r\n", b"\n"), "does not end its line", id="LF alone"),
        pytest.param(form((MODEL, b"m"), (FILE, b"\n--" + BOUNDARY)), "does not stand at the begin", id="LF before it"),
        pytest.param(
            form((FILE, b"x--" + BOUNDARY + b"\r\n"), (MODEL, b"m")), "begin of a line", id="inside of a line"
        ),
        pytest.param(form((FILE, b"\r\n--" + BOUNDARY + b"x\r\n"), (MODEL, b"m")), "end its line", id="a longer one"),
        pytest.param(form((FILE, b"\r\n--" + BOUNDARY + b" \r\n"), (MODEL, b"m")), "end its line", id="a blank behind"),
        pytest.param(form((MODEL, b"m")) + form((MODEL, b"n")), "goes on behind", id="a second form"),
        pytest.param(form((MODEL, b"m")) + b"x", "goes on behind", id="an epilogue"),
        pytest.param(form(), "'model' is missing", id="no part"),
        pytest.param(form((FILE, b"x")), "'model' is missing", id="no model"),
        pytest.param(form((MODEL, b"")), "'model' is missing or empty", id="an empty model"),
        pytest.param(form((MODEL, b"\xff")), "not valid UTF-8", id="a model in Latin-1"),
        pytest.param(form((MODEL, b"m" * (MODEL_MOST_BYTES + 1))), "'model' is too long", id="a long model"),
        pytest.param(form((MODEL, b"m"), (MODEL, b"m")), "'model' is given twice", id="the model twice"),
        pytest.param(form((MODEL, b"m"), (b"form-data; name=model", b"n")), "given twice", id="the model in two ways"),
        pytest.param(form((MODEL + b'; filename="m"', b"m")), "must not be a file", id="a model in a file"),
        pytest.param(form((MODEL + b"; filename*=utf-8''m", b"m")), "must not be a file", id="the same by RFC 5987"),
        pytest.param(form((b'form-data; name="mod%65l"', b"m")), "by another name", id="an escaped model"),
        pytest.param(
            form((MODEL + b"\r\nContent-Transfer-Encoding: base64", b"bQ==")), "must not be encoded", id="base64"
        ),
        pytest.param(form((MODEL, b"m"), (b'form-data; name="model[]"', b"n")), "by another name", id="an array"),
        pytest.param(form((MODEL, b"m"), (b"form-data; name=model[0]", b"n")), "by another name", id="a part of one"),
        pytest.param(
            form((MODEL, b"m"), (b'form-data; name="model%5B%5D"', b"n")), "by another name", id="an escaped array"
        ),
        pytest.param(
            form((MODEL + b"\r\nContent-Type: text/plain; charset=utf-16le", b"m\0")), "in UTF-8", id="UTF-16"
        ),
        pytest.param(
            form((MODEL + b"\r\nContent-Type: text/plain; charset=utf-8; charset=utf-7", b"m")),
            "must be in UTF-8",
            id="two charsets",
        ),
        pytest.param(
            form((MODEL + b"\r\nContent-Type: text/plain;charset*=us-ascii''x", b"m")), "in UTF-8", id="an odd charset"
        ),
        pytest.param(form((FILE, b"x"), *[(FILE, b"")] * PARTS_MOST), "too many parts", id="too many parts"),
        pytest.param(
            form((MODEL + b"\r\nX: " + b"x" * HEAD_MOST_BYTES, b"m")), "head of a part.*too long", id="a long head"
        ),
    ],
)
@pytest.mark.parametrize("size", [1, 7, 10**6])
def test_form_that_parsers_read_in_different_ways_is_refused(raw: bytes, message: str, size: int) -> None:
    with pytest.raises(InvalidRequest, match=message):
        read(*[raw[at : at + size] for at in range(0, len(raw), size)])


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"", id="no head"),
        pytest.param(b"Content-Type: text/plain\r\n", id="no disposition"),
        pytest.param(
            b"Content-Disposition: form-data; name=a\r\nCONTENT-DISPOSITION: form-data; name=model\r\n", id="two"
        ),
        pytest.param(b"Content-Disposition : form-data; name=model\r\n", id="a blank before the colon"),
        pytest.param(b"Content-Disposition: form-data;\r\n name=model\r\n", id="folded"),
        pytest.param(
            b"Content-Disposition: form-data; name=a\nContent-Disposition: form-data; name=model\r\n", id="LF"
        ),
        pytest.param(b"Content-Disposition: form-data; name=a\rX: y\r\n", id="CR"),
        pytest.param(b"Content-Disposition: form-data; name=mo\x00del\r\n", id="NUL"),
        pytest.param(b"Content-Disposition: attachment; name=model\r\n", id="no form data"),
        pytest.param(b"Content-Disposition: form-data\r\n", id="no name"),
        pytest.param(b'Content-Disposition: form-data; name=""\r\n', id="an empty name"),
        pytest.param(b"Content-Disposition: form-data; name=a; name=model\r\n", id="two names"),
        pytest.param(b"Content-Disposition: form-data; name=a; NAME=model\r\n", id="two names in other letters"),
        pytest.param(b"Content-Disposition: form-data; name*=utf-8''model\r\n", id="a name by RFC 5987"),
        pytest.param(b"Content-Disposition: form-data; name=a; name*=utf-8''model\r\n", id="a second one by it"),
        pytest.param(b"Content-Disposition: form-data; name*0=mo; name*1=del\r\n", id="a name in pieces"),
        pytest.param(b'Content-Disposition: form-data; name="mod\\el"\r\n', id="an escape"),
        pytest.param(b'Content-Disposition: form-data; name=" model"\r\n', id="a blank before it"),
        pytest.param(b'Content-Disposition: form-data; name=a; filename="\\"; name=model; x="\r\n', id="a hidden one"),
        pytest.param(b'Content-Disposition: form-data; name="model\r\n', id="a quote that does not end"),
        pytest.param(b"Content-Disposition: form-data; name=a name=model\r\n", id="no semicolon"),
    ],
)
def test_part_whose_name_parsers_read_in_different_ways_is_refused(head: bytes) -> None:
    with pytest.raises(InvalidRequest, match=r"of a part of the request body cannot be read\."):
        read(b"--%b\r\n%b\r\nm\r\n" % (BOUNDARY, head) + form((MODEL, b"m")))


# The boundary


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        (TYPE, BOUNDARY),
        ('Multipart/Form-Data ; charset=utf-8;BOUNDARY="a b"', b"a b"),
        ("multipart/form-data; boundary====1==", b"===1=="),
        ("multipart/form-data; boundary=" + "b" * 70, b"b" * 70),
    ],
)
def test_boundary_is_the_one_that_the_content_type_names(content_type: str, boundary: bytes) -> None:
    assert boundary_of(content_type) == boundary


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "application/json",
        "application/x-www-form-urlencoded; boundary=a",
        "multipart/mixed; boundary=a",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary=""',
        "multipart/form-data; boundary=a; boundary=b",
        "multipart/form-data; boundary*=utf-8''a",
        "multipart/form-data; boundary=a; boundary*=utf-8''b",
        'multipart/form-data; boundary="a "',
        'multipart/form-data; boundary="a\\"; x="b"',
        "multipart/form-data; boundary=a, multipart/form-data; boundary=b",
        "multipart/form-data; boundary=ä",
        "multipart/form-data; boundary=" + "b" * 71,
        "multipart/form-data; boundary=a\r\nX: y",
    ],
)
def test_content_type_without_one_sure_boundary_is_refused(content_type: str) -> None:
    with pytest.raises(InvalidRequest):
        boundary_of(content_type)


# Changes


def rewrite(pieces: Sequence[bytes], **changes: Any) -> bytes:
    return b"".join(rewritten(pieces, BOUNDARY, **{"model": "m", **changes}))


@given(OTHERS, MODELS, OTHERS, PLACES)
def test_form_without_a_change_stays_as_it_is(
    before: list[Part], model: bytes, behind: list[Part], places: list[int]
) -> None:
    raw = form(*before, (MODEL, model), *behind)
    assert rewrite(cut(raw, places), model=model.decode(), strip_fields=["none"]) == raw


@given(OTHERS, OTHERS, PLACES)
def test_form_is_changed_where_the_config_asks_for_it_however_it_is_cut(
    before: list[Part], behind: list[Part], places: list[int]
) -> None:
    raw = form(*before, (MODEL, b"m"), *behind)
    changes: Any = {"model": "größer", "strip_fields": ["a"], "set_fields": {"x": "added", "y": "added"}}
    added = [(b'form-data; name="x"', b"added"), (b'form-data; name="y"', b"added")]
    if any(b"name=x" in head for head, _ in before + behind):
        del added[0]
    kept = [part for part in [*before, (MODEL, "größer".encode()), *behind] if b"a[]" not in part[0]]
    assert rewrite(cut(raw, places), **changes) == form(*kept, *added)


def test_length_in_the_head_of_the_model_is_made_right() -> None:
    raw = form((MODEL + b"\r\ncontent-length: 1\r\nX: 1", b"m"))
    assert rewrite([raw], model="longer") == form((MODEL + b"\r\ncontent-length: 6\r\nX: 1", b"longer"))


@pytest.mark.parametrize(
    ("value", "text"),
    [("text", b"text"), (0.5, b"0.5"), (1, b"1"), (True, b"true"), (None, b"null"), (["ü"], '["ü"]'.encode())],
)
def test_field_that_is_added_is_text(value: object, text: bytes) -> None:
    assert fields_of(rewrite([form((MODEL, b"m"))], set_fields={"a b": value}))["a b"] == [text]


def test_all_parts_may_be_left_out() -> None:
    raw = form((FILE, b"x"), (MODEL, b"m"))
    assert rewrite([raw], strip_fields=["file", "model"]) == form()
