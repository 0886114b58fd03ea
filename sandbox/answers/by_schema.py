"""JSON made for a JSON Schema, as a model would that is forced to: arguments of tools, structured output.

A toy's reading of the schema: the first of a choice, every member of an object, one item of a list. Numbers are
those of the question in turn, texts the answer's. `wording` writes that text; `chat` and `responses` call this.
"""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from sandbox.answers.wording import Pace, compose

_DEEPEST = 20  # a schema may refer to itself
_NUMBER = re.compile(r"-?\d+")
_QUOTED = re.compile(r"'(\w+)'")


def compose_arguments(schema: Any, question: str, pace: Pace, choice: int = 0) -> str:
    """Write the arguments of a tool call, which are JSON inside a string; a tool without parameters gets the text."""
    if not isinstance(schema, dict) or "properties" not in schema:
        schema = {"properties": {"input": {"type": "string"}}}
    return compose_by_schema(schema, question, pace, choice)


def read_format(value: Any) -> tuple[str, Any]:
    """Get the kind of answer that is asked for (text, json_object, json_schema) and its schema.

    The schema is a member of its own in a chat's response_format, and beside the type in a response's text.format.
    """
    if not isinstance(value, dict):
        return "text", None
    inner = value.get("json_schema")
    return str(value.get("type")), (inner if isinstance(inner, dict) else value).get("schema")


def compose_as(kind: str, schema: Any, question: str, pace: Pace, choice: int = 0) -> str:
    """Write the answer as that kind; a JSON object has a text for each word between single quotes in the question."""
    if kind == "json_object":
        names = _QUOTED.findall(question) or ["answer"]
        schema = {"properties": {name: {"type": "string"} for name in names}}
    elif kind != "json_schema":
        return compose(question, pace, choice)
    return compose_by_schema(schema, question, pace, choice)


def compose_by_schema(schema: Any, question: str, pace: Pace, choice: int = 0) -> str:
    """Write JSON that follows a schema."""
    numbers = (int(number) for number in _NUMBER.findall(question))
    writer = _Writer(schema, numbers, compose(question, pace, choice))
    return json.dumps(writer.value(schema), ensure_ascii=False)


class _Writer:
    """Makes one value; the root is where a schema's references begin."""

    def __init__(self, root: Any, numbers: Iterator[int], text: str) -> None:
        self._root = root
        self._numbers = numbers
        self._text = text

    def value(self, schema: Any, depth: int = 0) -> Any:
        schema = schema if isinstance(schema, dict) else {}
        if depth > _DEEPEST:
            return None
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return schema["enum"][0]
        if reference := schema.get("$ref"):
            return self.value(self._find(str(reference)), depth + 1)
        for choices in ("anyOf", "oneOf", "allOf"):
            if schema.get(choices):
                return self.value(schema[choices][0], depth + 1)
        return self._of_type(schema, depth)

    def _of_type(self, schema: dict[str, Any], depth: int) -> Any:
        kind = schema.get("type") or ("object" if "properties" in schema else "string")
        makers: dict[str, Callable[[], Any]] = {
            "object": lambda: {
                name: self.value(member, depth + 1) for name, member in (schema.get("properties") or {}).items()
            },
            "array": lambda: [self.value(schema.get("items"), depth + 1)],
            "integer": lambda: next(self._numbers, 1),
            "number": lambda: next(self._numbers, 1),
            "boolean": lambda: True,
            "null": lambda: None,
        }
        return makers.get(kind if isinstance(kind, str) else kind[0], lambda: self._text)()

    def _find(self, reference: str) -> Any:
        """Get what a reference within the schema points at; {} where there is nothing."""
        place = self._root
        for name in reference.removeprefix("#").strip("/").split("/"):
            place = place.get(name, {}) if isinstance(place, dict) and name else place
        return place
