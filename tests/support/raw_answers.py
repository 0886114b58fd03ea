"""Answers out of the bytes of one connection, where every byte must belong to one: what a desync would break.

The tests of smuggling read with it. What an answer means is left to them.
"""

import re
from dataclasses import dataclass

from tests.support.raw_http import field_of, status_of

_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]+")


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """One answer: its head as it came, and its body taken out of its framing."""

    head: bytes
    body: bytes

    @property
    def status(self) -> int:
        return status_of(self.head)

    def field(self, name: str) -> str | None:
        return field_of(self.head, name)


def answers_of(data: bytes) -> list[RawAnswer]:
    """All answers, interim ones too, in their order; an AssertionError for bytes that are none, or half of one."""
    answers = []
    while data:
        head, mark, rest = data.partition(b"\r\n\r\n")
        assert mark, f"half a head, or no answer: {data[:200]!r}"
        body, data = _body_of(head, rest)
        answers.append(RawAnswer(head, body))
    return answers


def _body_of(head: bytes, rest: bytes) -> tuple[bytes, bytes]:
    """The body, and what follows it."""
    if status_of(head) < 200 or status_of(head) in (204, 304):
        return b"", rest
    if field_of(head, "Transfer-Encoding") == "chunked":
        return _unchunked(rest)
    length = field_of(head, "Content-Length")
    assert length is not None, f"neither chunks nor a length: {head!r}"
    assert len(rest) >= int(length), f"{int(length) - len(rest)} bytes are missing"
    return rest[: int(length)], rest[int(length) :]


def _unchunked(data: bytes) -> tuple[bytes, bytes]:
    body = b""
    while True:
        size, mark, data = data.partition(b"\r\n")
        assert mark, "the last chunk is missing"
        assert _CHUNK_SIZE.fullmatch(size), size[:50]
        chunk, end, data = data[: int(size, 16)], data[int(size, 16) :][:2], data[int(size, 16) + 2 :]
        assert end == b"\r\n", end
        if not chunk:
            return body, data
        body += chunk
