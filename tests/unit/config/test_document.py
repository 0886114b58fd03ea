import pytest

from config import ConfigError
from config.document import expand, parse


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: [", "line 1, column 5"),
        ("a: 1\nb: {mark: mark", "line 2, column 15"),
        ("a: 1\n  mark: 2", "line 2, column 7"),
        ("a: *mark", "line 1, column 4"),
        ("a: !mark 1", "line 1, column 4"),
        ("a: !!int mark", "line 1, column 4"),
        ("a: !!timestamp mark", "line 1, column 4"),
        ("a: 0x_", "line 1, column 4"),
        ("a: 1\nb: \x01mark", "line 2, column 4"),
        ("? [mark]\n: 1", "line 1, column 3"),
        ("a: 1\n---\nmark: 2", "line 2, column 1"),
    ],
    ids=[
        "open list",
        "open mapping",
        "indentation",
        "unknown alias",
        "unknown tag",
        "wrong tag",
        "wrong timestamp",
        "wrong number",
        "control character",
        "list as a key",
        "two documents",
    ],
)
def test_text_that_is_no_yaml_gives_one_fault_with_line_and_column(text: str, place: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    (fault,) = caught.value.faults
    assert fault.startswith(f"{place}: ")
    assert "mark" not in fault


@pytest.mark.parametrize("text", ["- 1", "word", "5"], ids=["list", "text", "number"])
def test_document_that_is_no_mapping_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="must be a mapping of sections"):
        parse(text)


def test_document_nested_beyond_the_stack_is_refused() -> None:
    with pytest.raises(ConfigError, match="nested too deeply"):
        parse("a: " + "[" * 5000)


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n"], ids=["empty", "comment", "marker"])
def test_empty_text_is_an_empty_document(text: str) -> None:
    assert parse(text) == ({}, [])


def test_every_key_given_twice_is_a_fault_with_its_line() -> None:
    _, faults = parse("a: 1\nb:\n  c: 1\n  'c': 2\na: 3\n")
    assert faults == [
        "line 4: this key is already in the mapping",
        "line 5: this key is already in the mapping",
    ]


def test_key_that_overrides_a_merged_one_is_no_fault() -> None:
    document, faults = parse("a: &base {x: 1, y: 1}\nb: &more {<<: *base, x: 2}\nc: {<<: *more, x: 3}\n")
    assert document["c"] == {"x": 3, "y": 1}
    assert faults == []


def test_date_stays_text() -> None:
    assert parse("a: 2027-01-31T00:00:00Z")[0] == {"a": "2027-01-31T00:00:00Z"}


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("${NAME}", "value"),
        ("a ${NAME} b ${NAME}", "a value b value"),
        ("${EMPTY}", ""),
        ("${NAME:-other}", "value"),
        ("${EMPTY:-other}", "other"),
        ("${MISSING:-other}", "other"),
        ("${MISSING:-}", ""),
        ("$${NAME}", "${NAME}"),
        ("$NAME $ {NAME} $$", "$NAME $ {NAME} $$"),
        ("${NESTED}", "${NAME}"),
    ],
)
def test_references_in_texts_are_replaced_once(text: str, expanded: str) -> None:
    environ = {"NAME": "value", "EMPTY": "", "NESTED": "${NAME}"}
    assert expand({"a": [{"b": text}]}, environ) == ({"a": [{"b": expanded}]}, {})


def test_only_texts_are_replaced_and_keys_stay() -> None:
    document = {"${NAME}": [1, 1.5, True, None]}
    assert expand(document, {"NAME": "value"}) == (document, {})


@pytest.mark.parametrize("text", ["${", "${}", "${1A}", "${a-b}", "${NAME", "${NAME:other}"])
def test_reference_of_no_known_form_is_a_fault(text: str) -> None:
    _, faults = expand({"a": text}, {"NAME": "value"})
    assert faults == {("a",): "must hold ${NAME} or ${NAME:-default}; for a literal ${ write $${"}


def test_each_missing_variable_is_a_fault_with_its_location() -> None:
    _, faults = expand({"a": ["x", "${A}"], "b": {"c": "${B}"}}, {})
    assert faults == {
        ("a", 1): "needs the environment variable A, which is not set",
        ("b", "c"): "needs the environment variable B, which is not set",
    }


@pytest.mark.parametrize(
    "text",
    ["${BYTES}", "a ${BYTES}", "${NO:-\udcff}", "\ud800"],
    ids=["variable", "within-a-text", "default", "escape-in-yaml"],
)
def test_text_that_utf_8_cannot_carry_is_a_fault(text: str) -> None:
    document, faults = expand({"a": text, "b": "x"}, {"BYTES": "s3cret\udcff"})
    assert document == {"a": text, "b": "x"}
    assert faults == {("a",): "must be UTF-8 text, as must the environment variables that it names"}


def test_key_that_utf_8_cannot_carry_is_a_fault() -> None:
    document, _ = parse('a: {"\\ud800": x}')
    assert set(expand(document, {})[1]) == {("a",)}


@pytest.mark.parametrize("text", ["{1: x, b: '${A}'}", "{true: x, b: '${A}'}", "{null: x, b: '${A}'}"])
def test_key_that_is_no_text_is_a_fault_beside_those_of_other_members(text: str) -> None:
    document, _ = parse(f"a: {text}")
    assert set(expand(document, {})[1]) == {("a",), ("a", "b")}


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan", "!!binary aGk=", "!!set {x}"])
def test_value_that_json_does_not_know_is_a_fault(value: str) -> None:
    document, _ = parse(f"a: {value}")
    assert set(expand(document, {})[1]) == {("a",)}
