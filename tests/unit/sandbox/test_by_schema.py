"""JSON that follows a schema, as tools' arguments and as structured output."""

import json
from typing import Any

import pytest
from pydantic import BaseModel

from sandbox.answers.by_schema import compose_arguments, compose_as, compose_by_schema, read_format
from sandbox.answers.wording import read_pace

PACE = read_pace({})
ASKED = "Add 3 and -4"
SAID = "You said: Add 3 and -4"


class Leaf(BaseModel):
    """A model that another refers to, and itself."""

    kind: str
    next: "Leaf | None"


class Tree(BaseModel):
    """A model with all that pydantic writes into schemas."""

    leaves: list[Leaf]
    weight: float
    count: int
    is_old: bool


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "string"}, SAID),
        ({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "number"}}}, {"a": 3, "b": -4}),
        ({"type": "array", "items": {"type": "boolean"}}, [True]),
        ({"type": ["integer", "null"]}, 3),
        ({"anyOf": [{"type": "null"}, {"type": "string"}]}, None),
        ({"enum": ["b", "a"]}, "b"),
        ({"const": 7}, 7),
        ({"properties": {"c": {"type": "array", "items": {"type": "integer"}}}}, {"c": [3]}),
        ({"$ref": "#/$defs/x", "$defs": {"x": {"type": "integer"}}}, 3),
        ({"$ref": "#/$defs/none"}, SAID),
        ({"type": "object"}, {}),
        (True, SAID),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict | bool) else "",
)
def test_a_value_follows_its_schema(schema: Any, expected: Any) -> None:
    assert json.loads(compose_by_schema(schema, ASKED, PACE)) == expected


def test_numbers_are_those_of_the_question_and_then_one() -> None:
    schema = {"properties": {name: {"type": "integer"} for name in "abc"}}
    assert json.loads(compose_by_schema(schema, ASKED, PACE)) == {"a": 3, "b": -4, "c": 1}


def test_a_schema_that_refers_to_itself_comes_to_an_end() -> None:
    tree = Tree.model_validate_json(compose_by_schema(Tree.model_json_schema(), ASKED, PACE))
    assert (tree.weight, tree.count, tree.is_old) == (3, -4, True)
    assert tree.leaves[0].kind == SAID


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        (None, {"input": SAID}),
        ({"type": "object"}, {"input": SAID}),
        ({"type": "object", "properties": {}}, {}),
        ({"type": "object", "properties": {"city": {"type": "string"}}}, {"city": SAID}),
    ],
    ids=["no parameters", "an open object", "none", "one"],
)
def test_arguments_are_those_that_a_tool_takes(parameters: Any, expected: Any) -> None:
    assert json.loads(compose_arguments(parameters, ASKED, PACE)) == expected


@pytest.mark.parametrize(
    ("given", "question", "expected"),
    [
        (None, ASKED, SAID),
        ({"type": "text"}, ASKED, SAID),
        ({"type": "json_object"}, "As 'a', 'b'", dict.fromkeys("ab", "You said: As 'a', 'b'")),
        ({"type": "json_object"}, ASKED, {"answer": SAID}),
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "integer"}}}, ASKED, 3),
        ({"type": "json_schema", "name": "x", "schema": {"type": "integer"}}, ASKED, 3),
    ],
    ids=["none", "text", "json_object of names", "json_object", "chat's json_schema", "responses' json_schema"],
)
def test_an_answer_has_the_format_that_is_asked_for(given: Any, question: str, expected: Any) -> None:
    answer = compose_as(*read_format(given), question, PACE)
    assert answer == expected or json.loads(answer) == expected
