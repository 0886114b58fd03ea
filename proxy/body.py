"""A request's JSON body: read once, checked, and sent on as the bytes that came unless the config asks for a change.

Pure: no Flask, no I/O. Used by the blueprints of the JSON routes.
"""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jiter

from proxy.errors import InvalidJson, InvalidRequest

# Colons and opening brackets, in texts too. Half a million members take a second to parse, in which nobody else is
# served; text has one in some 10 to 100 bytes, so this is a context of more than a million tokens.
MARKS_MOST = 500_000
LONG_BYTES = 4 * 1024 * 1024  # a shorter body cannot take much longer, and is not looked through for that


@dataclass(frozen=True, slots=True)
class JsonBody:
    """A caller's body: the bytes as they came, and what they say."""

    raw: bytes
    members: dict[str, Any]
    model: str
    stream: bool


def read_body(raw: bytes) -> JsonBody:
    """Parse and check. Raises InvalidJson (not JSON, or not strictly so) or InvalidRequest (not what a route needs).

    Strict where parsers differ, since the upstream reads the same bytes with another parser: members given twice,
    NaN and infinity, lone surrogates, other encodings than UTF-8, and nesting deeper than 200 are refused. So is what
    would hold the worker up: more than half a million colons and opening brackets in a body of over 4 MiB.
    """
    members = _parse(raw)
    if not isinstance(members, dict):
        raise InvalidRequest("The request body must be a JSON object.")
    model = members.get("model")
    if not isinstance(model, str) or not model:
        raise InvalidRequest("The member 'model' is missing or is not a non-empty string.", param="model")
    stream = members.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise InvalidRequest("The member 'stream' must be true or false.", param="stream")
    return JsonBody(raw, members, model, bool(stream))


def rewrite(
    body: JsonBody, *, model: str, strip_fields: Sequence[str] = (), set_fields: Mapping[str, Any] | None = None
) -> bytes:
    """The bytes to send: those that came, or new ones where the config asks for another model name or other members."""
    members = changed_members(body, model=model, strip_fields=strip_fields, set_fields=set_fields)
    return body.raw if members is body.members else json.dumps(members, ensure_ascii=False).encode()


def changed_members(
    body: JsonBody, *, model: str, strip_fields: Sequence[str] = (), set_fields: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The members to send; the same dict where nothing changes."""
    stripped = [name for name in strip_fields if name in body.members]
    added = {name: value for name, value in (set_fields or {}).items() if name not in body.members}
    if model == body.model and not stripped and not added:
        return body.members
    members = {**body.members, **added, "model": model}
    for name in stripped:
        members.pop(name, None)  # the config may name it twice
    return members


def _parse(raw: bytes) -> Any:
    if len(raw) > LONG_BYTES and raw.count(b":") + raw.count(b"[") + raw.count(b"{") > MARKS_MOST:
        raise InvalidRequest("The request body has too many members, arrays and objects.")
    try:
        # jiter finds members given twice in the same pass (orjson cannot), at the cost of orjson's parse.
        document = jiter.from_json(raw, allow_inf_nan=False, catch_duplicate_keys=True)
    except ValueError as error:
        raise InvalidJson(f"The request body is not valid JSON: {_without_text(error)}.") from None
    if not _is_finite(document):
        raise InvalidJson("The request body is not valid JSON: a number is too large.")
    return document


def _without_text(error: ValueError) -> str:
    """The parser's complaint without the caller's text, which it quotes for a member given twice."""
    text = str(error)
    if text.startswith("Detected duplicate key"):
        return "a member is given twice" + text[text.rindex(" at line") :]
    return text


def _is_finite(document: Any) -> bool:
    """Whether no number overflowed to infinity, as 1e309 does. Lists, some of 10^5 numbers, are searched at C speed."""
    pending: list[Collection[Any]] = [[document]]
    while pending:
        values = pending.pop()
        if math.inf in values or -math.inf in values:
            return False
        for value in values:
            if value.__class__ is dict:
                pending.append(value.values())
            elif value.__class__ is list:
                pending.append(value)
    return True
