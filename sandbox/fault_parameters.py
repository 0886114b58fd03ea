"""Readers of fault parameters: a JSON value in, the value `fault_kinds` works with out, or ParameterError."""

import base64
import binascii
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from sandbox.answers.shape import Headers

_MOST = 10**9


class ParameterError(ValueError):
    """A parameter of the wrong shape; the text says what is expected."""


@dataclass(frozen=True)
class Parameter:
    """How to read one parameter, and what it is where it is absent."""

    read: Callable[[Any], Any]
    default: Any


REQUIRED: Final = object()


def count(value: Any) -> int:
    """Read a whole number, 0 or more."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MOST:
        raise ParameterError("a whole number from 0 to 1e9")
    return value


def times(value: Any) -> int | None:
    """Read how often: 1 or more, or null for ever."""
    if value is not None and count(value) < 1:
        raise ParameterError("a whole number above 0, or null")
    return None if value is None else count(value)


def seconds(value: Any) -> float:
    """Read a time, 0 or more."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not 0 <= value <= _MOST:
        raise ParameterError("a number from 0 to 1e9")
    return float(value)


milliseconds = seconds


def status(value: Any) -> int:
    """Read a status; one that has no answer after it (1xx) can be sent as raw bytes."""
    if not 200 <= count(value) <= 599:
        raise ParameterError("a status from 200 to 599")
    return count(value)


def redirect_status(value: Any) -> int:
    """Read the status of a redirect."""
    if not 300 <= count(value) <= 399:
        raise ParameterError("a status from 300 to 399")
    return count(value)


def flag(value: Any) -> bool:
    """Read true or false."""
    if not isinstance(value, bool):
        raise ParameterError("true or false")
    return value


def text(value: Any) -> str:
    """Read a text."""
    if not isinstance(value, str):
        raise ParameterError("a text")
    return value


def optional_text(value: Any) -> str | None:
    """Read a text, or null."""
    return None if value is None else text(value)


def line(value: Any) -> str:
    """Read a text that a header field can hold; others can be sent as raw bytes."""
    if any(character in "\r\n\0" or ord(character) > 255 for character in text(value)):
        raise ParameterError("one line of Latin-1 text")
    return text(value)


def content(value: Any) -> bytes:
    """Read a body: a text, or {"base64": ...} for other bytes."""
    if isinstance(value, dict) and set(value) == {"base64"}:
        return base64_bytes(value["base64"])
    return text(value).encode("utf-8", "backslashreplace")


def base64_bytes(value: Any) -> bytes:
    """Read bytes in base64."""
    try:
        return base64.b64decode(text(value), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ParameterError("bytes in base64") from error


def base64_list(value: Any) -> list[bytes]:
    """Read a list of bytes in base64."""
    if not isinstance(value, list):
        raise ParameterError("a list of bytes in base64")
    return [base64_bytes(item) for item in value]


def fields(value: Any) -> Headers:
    """Read header fields: an object, or a list of pairs where a name comes twice."""
    pairs = list(value.items()) if isinstance(value, dict) else value
    if not isinstance(pairs, list) or not all(map(_is_pair, pairs)):
        raise ParameterError("an object, or a list of [name, value]")
    return tuple((line(name), line(one)) for name, one in pairs)


def _is_pair(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2
