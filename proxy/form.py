"""A request's multipart form: read as it comes, checked, and sent on as the bytes that came unless the config asks for
a change.

Strict where parsers differ, since the upstream reads the same bytes with another parser, and a model that only one of
them sees would pass by a client key's list: lines end with CRLF, the boundary stands between the parts and nowhere
else, and each part has one Content-Disposition with one name. werkzeug's decoder takes bare CR and LF for line ends,
and does not tell where a part stood. RFC 7578; RFC 2046 §5.1.1. Pure: no Flask, no I/O. Used by `blueprints.uploads`.
"""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple
from urllib.parse import unquote

from proxy.errors import InvalidRequest

HEAD_MOST_BYTES = 16 * 1024  # of one part
MODEL_MOST_BYTES = 16 * 1024
PARTS_MOST = 1000

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_PARAMETER = rf';[ \t]*({_TOKEN})=([^\s;",\\]+|"[^"]*")[ \t]*'
_PARAMETERS = re.compile(_PARAMETER)
_VALUE = re.compile(rf"[ \t]*([^\s;]+)[ \t]*((?:{_PARAMETER})*)")
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
_NAME = re.compile(r'(?! )[^"\\\x00-\x1f\x7f]+(?<! )')
_LINE = re.compile(rf"({_TOKEN}):([\t\x20-\x7e\x80-\xff]*)")
_LENGTH_LINE = re.compile(rb"(?i)(\r\ncontent-length:)[^\r]*")
_UNENCODED = ("7bit", "8bit", "binary")
_CHARSETS = ("utf-8", "us-ascii")


class Event(NamedTuple):
    """Some of the form's bytes; those of all events together are the form. A part is its delimiter and its head."""

    kind: Literal["part", "data", "end"]
    name: str  # of the part
    raw: bytes


def boundary_of(content_type: str) -> bytes:
    """The boundary that a Content-Type field names. Raises InvalidRequest."""
    if content_type.partition(";")[0].strip().lower() != "multipart/form-data":
        raise InvalidRequest("The request body must be multipart/form-data.")
    boundary = _parameter(content_type, "boundary") if content_type.isprintable() else None
    if boundary is None or not _BOUNDARY.fullmatch(boundary):
        raise InvalidRequest("The Content-Type of the request must name one boundary.")
    return boundary.encode("ascii")


class FormReader:
    """Bytes of a form in, events out, however the bytes are cut. Raises InvalidRequest as soon as one shows a fault."""

    def __init__(self, boundary: bytes) -> None:
        self.model: str | None = None  # once its part is over
        self.model_part = b""  # its delimiter and head
        self.is_complete = False  # the closing boundary has come
        self._delimiter = b"--" + boundary
        self._held = bytearray()  # no event yet
        self._opening = b""  # the delimiter of the part whose head is being read
        self._name = ""
        self._value = bytearray()  # of the model
        self._parts = 0
        self._next = self._start

    def feed(self, data: bytes) -> list[Event]:
        self._held += data
        events = []
        while self._held and (event := self._next()) is not None:
            if event.raw:
                events.append(event)
        return events

    def finish(self) -> None:
        """Say that no more comes. Raises InvalidRequest where something is missing."""
        if not self.is_complete:
            raise InvalidRequest("The request body ends before its closing boundary.")
        if self.model is None:
            raise _no_model()

    def _start(self) -> Event | None:
        """Before the first boundary nothing may stand but a line end, which some clients send."""
        before = 2 if self._held.startswith(b"\r\n") else 0
        if len(self._held) < before + len(self._delimiter):
            return None
        if not self._held.startswith(self._delimiter, before):
            raise InvalidRequest("The request body does not begin with its boundary.")
        return self._delimit(before)

    def _data(self) -> Event | None:
        at = self._held.find(self._delimiter)
        if at < 0:
            # The rest may be the begin of a delimiter, with the line end before it.
            size = len(self._held) - len(self._delimiter) - 1
            return self._value_of(size) if size > 0 else None
        if at < 2 or self._held[at - 2 : at] != b"\r\n":
            raise InvalidRequest("A boundary of the request body does not stand at the begin of a line.")
        return self._value_of(at - 2) if at > 2 else self._delimit(2)

    def _value_of(self, size: int) -> Event:
        data = self._take(size)
        if self._name == "model":
            self._value += data
            if len(self._value) > MODEL_MOST_BYTES:
                raise InvalidRequest("The field 'model' is too long.", param="model")
        return Event("data", self._name, data)

    def _delimit(self, at: int) -> Event | None:
        end = at + len(self._delimiter) + 2
        if len(self._held) < end:
            return None
        mark = bytes(self._held[end - 2 : end])
        if mark not in (b"\r\n", b"--"):
            raise InvalidRequest("A boundary of the request body does not end its line.")
        if self._name == "model":
            self.model = _read_model(self._value)
        self._name = ""
        if mark == b"--":
            self._next, self.is_complete = self._epilogue, True
            return Event("end", "", self._take(end))
        self._next, self._opening = self._head, self._take(end)
        return Event("part", "", b"")

    def _head(self) -> Event | None:
        end = self._held.find(b"\r\n\r\n")
        if (len(self._held) if end < 0 else end) > HEAD_MOST_BYTES:
            raise InvalidRequest("The head of a part of the request body is too long.")
        if end < 0:
            return None
        self._parts += 1
        if self._parts > PARTS_MOST:
            raise InvalidRequest("The request body has too many parts.")
        self._name = _read_head(self._held[:end].decode("latin-1"))
        raw = self._opening + self._take(end + 4)
        if self._name == "model":
            if self.model_part:
                raise InvalidRequest("The field 'model' is given twice.", param="model")
            self.model_part = raw
        self._next = self._data
        return Event("part", self._name, raw)

    def _epilogue(self) -> Event:
        if self._held.strip(b"\r\n"):
            raise InvalidRequest("The request body goes on behind its closing boundary.")
        return Event("end", "", self._take(len(self._held)))

    def _take(self, size: int) -> bytes:
        data = bytes(self._held[:size])
        del self._held[:size]
        return data


def rewritten(
    pieces: Iterable[bytes],
    boundary: bytes,
    *,
    model: str,
    strip_fields: Collection[str] = (),
    set_fields: Mapping[str, Any] | None = None,
) -> Iterator[bytes]:
    """The form with another model name, and without or with other fields: what `body.rewrite` does to JSON.

    As many pieces as came; those of which nothing is left are empty.
    """
    reader, names = FormReader(boundary), set[str]()
    left_out = has_begun = is_first = False
    for piece in pieces:
        kept = []
        for event in reader.feed(piece):
            raw = event.raw
            if event.kind == "part":
                is_first = not names
                # Arrays of the SDKs have brackets behind their name.
                names.add(event.name.removesuffix("[]"))
                left_out = event.name.removesuffix("[]") in strip_fields
                if event.name == "model":
                    raw = model_part(raw, model)
            elif event.kind == "end":
                left_out = False
                raw = _fields(boundary, {k: v for k, v in (set_fields or {}).items() if k not in names}) + raw
                set_fields = None  # the end may come in two events
            elif event.name == "model":
                continue  # stands behind its head already
            if not left_out:
                kept.append(raw if has_begun or is_first else raw.removeprefix(b"\r\n"))
                has_begun = True
        yield b"".join(kept)


def model_part(head: bytes, model: str) -> bytes:
    """A model's part of another value; some clients tell the length of each part in its head."""
    value = model.encode()
    return _LENGTH_LINE.sub(rb"\g<1> %d" % len(value), head) + value


def _fields(boundary: bytes, fields: Mapping[str, Any]) -> bytes:
    parts = []
    for name, value in fields.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        # As browsers do: https://html.spec.whatwg.org/multipage/form-control-infrastructure.html#multipart-form-data
        quoted = name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
        parts.append(
            f'\r\n--{boundary.decode()}\r\nContent-Disposition: form-data; name="{quoted}"\r\n\r\n{text}'.encode()
        )
    return b"".join(parts)


def _read_head(head: str) -> str:
    """The name of a part. Raises InvalidRequest."""
    lines = [_LINE.fullmatch(line) for line in head.split("\r\n")]
    fields = [(line[1].lower(), line[2]) for line in lines if line is not None]
    dispositions = [value for name, value in fields if name == "content-disposition"]
    if len(fields) < len(lines) or len(dispositions) != 1:
        raise InvalidRequest("The head of a part of the request body cannot be read.")
    disposition = dispositions[0]
    name = _parameter(disposition, "name")
    if name is None or disposition.partition(";")[0].strip().lower() != "form-data" or not _NAME.fullmatch(name):
        raise InvalidRequest("The Content-Disposition of a part of the request body cannot be read.")
    # Clients escape names too, and some parsers take brackets behind a name for an array of that name.
    if name != "model" and unquote(name).partition("[")[0] == "model":
        raise InvalidRequest("The field 'model' is given by another name.", param="model")
    if name == "model":
        _check_model(disposition, fields)
    return name.encode("latin-1").decode(errors="replace")


def _check_model(disposition: str, fields: list[tuple[str, str]]) -> None:
    """Refuse what makes a file of it for some parsers, or another text."""
    if re.search(r"(?i);\s*filename", disposition):
        raise InvalidRequest("The field 'model' must not be a file.", param="model")
    codings = [value.strip().lower() for name, value in fields if name == "content-transfer-encoding"]
    if not all(coding in _UNENCODED for coding in codings):
        raise InvalidRequest("The field 'model' must not be encoded.", param="model")
    types = [value for name, value in fields if name == "content-type" and re.search(r"(?i);\s*charset", value)]
    if not all((_parameter(value, "charset") or "").lower() in _CHARSETS for value in types):
        raise InvalidRequest("The field 'model' must be in UTF-8.", param="model")


def _read_model(value: bytearray) -> str:
    try:
        model = value.decode()
    except UnicodeDecodeError:
        raise InvalidRequest("The field 'model' is not valid UTF-8.", param="model") from None
    if not model:
        raise _no_model()
    return model


def _no_model() -> InvalidRequest:
    return InvalidRequest("The field 'model' is missing or empty.", param="model")


def _parameter(value: str, name: str) -> str | None:
    """The parameter of that name; None where parsers may find another one, or none, or two."""
    match = _VALUE.fullmatch(value)
    # A backslash before a quote is the quote's escape for some, and a character before the text's end for others.
    if match is None or '\\"' in value:
        return None
    found = [(key, text) for key, text in _PARAMETERS.findall(match[2]) if key.partition("*")[0].lower() == name]
    if len(found) != 1 or "*" in found[0][0]:
        return None
    text: str = found[0][1]
    return text[1:-1] if text.startswith('"') else text
