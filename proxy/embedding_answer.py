"""Embeddings answers: floats as base64 where a caller asked for it, and the answers to several parts as one.

`encoding_format: base64` is honoured where the upstream ignores it: the node client reads whatever comes as such, so
floats would reach its user as garbage. They become little-endian float32, as OpenAI sends them.

Floats that stay floats are not written anew: a million of them would take a second of CPU, and so their digits cross
as they came. Called by the embeddings view, and for parts by `upstreams` on the event loop. No I/O.
"""

import base64
import json
import re
import sys
import time
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jiter

from proxy.errors import UpstreamUnavailable

_START = re.compile(rb'"embedding"\s*:\s*\[')
_PAUSE_EVERY = 16  # embeddings, which take some milliseconds: a worker under gevent serves nobody else meanwhile
_PAUSE_S = 1e-6  # not 0: gevent looks at no socket then

# An embedding as it is handed on: the JSON text of floats or of their base64, or whatever else came.
_Vector = bytes | Any


@dataclass(frozen=True, slots=True)
class Part:
    """The answer to one part of an input: its entries as JSON, each with its index in the whole, and all else."""

    entries: bytes
    members: dict[str, Any]


def to_base64(answer: bytes) -> bytes:
    """The answer with every embedding as base64; the bytes that came where they are so already.

    Raises UpstreamUnavailable for an answer that cannot be read. Lets other requests run meanwhile.
    """
    if not _START.search(answer):
        return answer
    with _upstreams_fault():
        document, vectors = _read(answer)
        entries = []
        for number, (item, vector) in enumerate(zip(document["data"], vectors, strict=True)):
            entries.append(_entry(item, _packed(vector)))
            if number % _PAUSE_EVERY == _PAUSE_EVERY - 1:
                time.sleep(_PAUSE_S)
    return join([Part(b", ".join(entries), document)])


def read_part(answer: bytes, *, first: int, count: int, as_base64: bool) -> Part:
    """The answer to the `count` inputs from the whole's `first` on. Never pauses: gevent is not for the event loop.

    Raises UpstreamUnavailable where there is not one embedding for each of them: one that is missing, there twice or
    numbered otherwise would let others pass for the embeddings of other texts.
    """
    with _upstreams_fault():
        document, vectors = _read(answer)
        data = document["data"]
        places = {item["index"]: place for place, item in enumerate(data)}
        if len(data) != count or places.keys() != set(range(count)):
            raise UpstreamUnavailable(cause=f"not one embedding for each of {count} inputs")
        entries = []
        for index in range(count):
            place = places[index]
            vector = _packed(vectors[place]) if as_base64 else _checked(vectors[place])
            entries.append(_entry({**data[place], "index": first + index}, vector))
    return Part(b", ".join(entries), document)


def join(parts: Sequence[Part]) -> bytes:
    """One answer: the entries in order, `usage` added up, the rest as in the first."""
    members = dict(parts[0].members)
    usages = [part.members["usage"] for part in parts if isinstance(part.members.get("usage"), dict)]
    if usages:
        members["usage"] = _sum_of(usages)
    entries = b", ".join(part.entries for part in parts)
    pieces: list[bytes] = []
    for name, value in members.items():
        text = [b"[", entries, b"]"] if name == "data" else [_dumped(value)]
        pieces += [b", " if pieces else b"{", _dumped(name), b": ", *text]
    return b"".join([*pieces, b"}"])


@contextmanager
def _upstreams_fault() -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise UpstreamUnavailable(cause="an embeddings answer that cannot be read") from error


def _read(answer: bytes) -> tuple[dict[str, Any], list[_Vector]]:
    """The document, and the embedding of each of its entries; the entries have none of floats any more."""
    rest, floats = _cut(answer)
    document = jiter.from_json(rest, cache_mode="keys")
    vectors = [item["embedding"] for item in document["data"]]
    places = [vector for vector in vectors if type(vector) is int]
    if places != list(range(len(floats))):  # one of them stands elsewhere
        document = jiter.from_json(answer, cache_mode="keys")
        return document, [item["embedding"] for item in document["data"]]
    return document, [floats[vector] if type(vector) is int else vector for vector in vectors]


def _cut(answer: bytes) -> tuple[bytes, list[bytes]]:
    """The answer with a number in place of each flat list, and the lists; from the first other one on it is left as it
    is, since looking on could take a time that is quadratic in its length."""
    kept: list[bytes] = []
    floats: list[bytes] = []
    taken = 0
    start = _START.search(answer)
    while start is not None:
        begin = start.end() - 1
        end = answer.find(b"]", begin) + 1
        text = answer[begin:end]
        if text.count(b"[") != 1 or b'"' in text:
            break
        kept += [answer[taken:begin], b"%d" % len(floats)]
        floats.append(text)
        taken = end
        start = _START.search(answer, taken)
    return b"".join([*kept, answer[taken:]]), floats


def _entry(item: dict[str, Any], vector: _Vector) -> bytes:
    if not isinstance(vector, bytes):
        return _dumped({**item, "embedding": vector})
    del item["embedding"]
    return b"".join([b'{"embedding": ', vector, b", " if item else b"", _dumped(item)[1:]])


def _checked(vector: _Vector) -> _Vector:
    if isinstance(vector, bytes):
        _numbers(vector)
    return vector


def _packed(vector: _Vector) -> _Vector:
    """Floats as base64; what is none already crosses as it is."""
    if not isinstance(vector, bytes | list):
        return vector
    packed = _numbers(vector) if isinstance(vector, bytes) else array("f", vector)
    if sys.byteorder == "big":
        packed.byteswap()
    return b'"%s"' % base64.b64encode(packed.tobytes())


def _numbers(text: bytes) -> "array[float]":
    return array("f", jiter.from_json(text))


def _sum_of(usages: Sequence[dict[str, Any]]) -> dict[str, Any]:
    total: dict[str, Any] = {}
    for usage in usages:
        for name, more in usage.items():
            total[name] = _sum(total.get(name), more)
    return total


def _sum(known: Any, more: Any) -> Any:
    """Of two counts or of two objects of counts, such as prompt_tokens_details; else what was told last."""
    if isinstance(known, dict) and isinstance(more, dict):
        return _sum_of([known, more])
    if isinstance(known, int | float) and isinstance(more, int | float):
        return known + more
    return more


def _dumped(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
