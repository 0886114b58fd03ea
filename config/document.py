"""Text of config.yaml → plain mappings, lists and values, with `${NAME}` replaced. No schema here.

YAML 1.1 as PyYAML reads it, but for three things: a key given twice is a fault (PyYAML keeps the last one in
silence), a date stays text (a token endpoint may want it so), and only what JSON knows is taken.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import yaml

from config.errors import ConfigError, Fault, Location

_REFERENCE = re.compile(r"\$\$\{|\$\{(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\})?")
_TIMESTAMP = "tag:yaml.org,2002:timestamp"


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = {  # noqa: RUF012 - a class attribute of PyYAML's, not annotated there as one
        first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.faults: list[str] = []

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        # While composing: afterwards merge keys (<<) put legal doubles into the node.
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if (key.tag, str(key.value)) in seen:
                self.faults.append(f"line {key.start_mark.line + 1}: this key is already in the mapping")
            seen.add((key.tag, str(key.value)))
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError, TypeError):
            # An explicit tag (`!!int x`) or a number that the text does not fit; PyYAML lets these escape.
            raise yaml.constructor.ConstructorError(problem_mark=node.start_mark) from None


def parse(text: str) -> tuple[dict[str, Any], list[str]]:
    """The document and a fault for each key that is given twice. An empty file is an empty document.

    Raises ConfigError with one fault when the text is not YAML or not a mapping.
    """
    try:
        loader = _Loader(text)
        document = loader.get_single_data()
    except yaml.YAMLError as error:
        # Not chained and without PyYAML's text: both quote the file.
        raise ConfigError([_syntax_fault(text, error)]) from None
    except RecursionError:
        raise ConfigError(["the file: is nested too deeply"]) from None
    if not isinstance(document, dict | None):
        raise ConfigError(["the file: must be a mapping of sections"])
    return document or {}, loader.faults


def _syntax_fault(text: str, error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.reader.ReaderError):
        before = text[: error.position]
        line, column = before.count("\n"), len(before) - before.rfind("\n") - 1
        return f"line {line + 1}, column {column + 1}: a character that YAML does not allow"
    mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
    place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "the file"
    return f"{place}: not valid YAML (indentation, or a text that needs quotes?)"


def expand(document: Any, environ: Mapping[str, str]) -> tuple[Any, dict[Location, str]]:
    """A copy with the references in its texts replaced, and the text of each fault by its location.

    A text at fault stays as it is. Raises RecursionError for an alias that contains itself.
    """
    faults: dict[Location, str] = {}

    def walk_members(mapping: dict[Any, Any], at: Location) -> dict[str, Any]:
        if not all(isinstance(key, str) and _is_utf_8(key) for key in mapping):
            faults[at] = "must have texts as keys: put numbers, dates, yes and no in quotes"
        return {key: walk(member, (*at, key)) for key, member in mapping.items() if isinstance(key, str)}

    def walk(value: Any, at: Location) -> Any:
        try:
            if isinstance(value, dict):
                return walk_members(value, at)
            if isinstance(value, list):
                return [walk(item, (*at, index)) for index, item in enumerate(value)]
            return _replace(value, environ) if isinstance(value, str) else _checked_scalar(value)
        except Fault as fault:
            faults[at] = str(fault)
            return value

    return walk(document, ()), faults


def _checked_scalar(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        raise Fault("must be a finite number")
    if value is not None and not isinstance(value, bool | int | float):
        raise Fault("must be a text, a number, true, false, null, a list or a mapping")
    return value


def _replace(text: str, environ: Mapping[str, str]) -> str:
    def resolve(match: re.Match[str]) -> str:
        if match[0] == "$${":
            return "${"
        if match["name"] is None:
            raise Fault("must hold ${NAME} or ${NAME:-default}; for a literal ${ write $${")
        # As in a shell: `:-` also stands in for an empty variable.
        value = environ.get(match["name"])
        found = (value or match["default"]) if match["default"] is not None else value
        if found is None:
            raise Fault(f"needs the environment variable {match['name']}, which is not set")
        return found

    replaced = _REFERENCE.sub(resolve, text)
    if not _is_utf_8(replaced):
        raise Fault("must be UTF-8 text, as must the environment variables that it names")
    return replaced


def _is_utf_8(text: str) -> bool:
    """Python reads other bytes of the environment as lone surrogates, and YAML can write one; neither can be sent."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
