"""Secrets made to be found again: where one of them shows in a text, plain or encoded, is a leak."""

import base64
import secrets
from collections.abc import Iterator, Mapping
from urllib.parse import quote

PIECE = 16  # a part of that length gives a secret away too
_NEAR = 24


def new_mark(name: str) -> str:
    """A secret whose plain and URL-encoded forms differ, and which nothing else can look like."""
    return f"mark+{name}/{secrets.token_hex(16)}=="


def find(marks: Mapping[str, str], places: Mapping[str, bytes]) -> list[str]:
    """Each leak as "PLACE: MARK (FORM)"; never the secret itself."""
    found = []
    for place, text in places.items():
        for name, mark in marks.items():
            found += [f"{place}: {name} ({form})" for form, needles in _forms(mark) if any(n in text for n in needles)]
    return found


def forms_found(mark: str, text: bytes) -> list[str]:
    """The forms of a mark that a text holds: shows that the search finds what is there."""
    return [form for form, needles in _forms(mark) if any(needle in text for needle in needles)]


def _forms(mark: str) -> Iterator[tuple[str, list[bytes]]]:
    raw = mark.encode()
    yield "plain", [raw[at : at + PIECE] for at in range(max(1, len(raw) - PIECE + 1))]
    if quote(mark, safe="") != mark:
        yield "URL-encoded", [quote(mark, safe="").encode()]
    yield "base64", [form for padding in range(3) for form in _base64_at(raw, padding)]


def _base64_at(raw: bytes, padding: int) -> list[bytes]:
    """The part of base64 that stays the same whatever stands before and after, for each of the three alignments."""
    text = base64.b64encode(b"\0" * padding + raw)
    whole = (padding + len(raw)) // 3 * 4  # after it come characters that what follows would change
    inner = text[[0, 2, 3][padding] : whole][:_NEAR]
    return [inner, inner.translate(bytes.maketrans(b"+/", b"-_"))]
