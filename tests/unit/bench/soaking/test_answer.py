"""What a caller of the soak makes of an answer: its end, its bytes, and what is wrong with it."""

import hashlib
import json
import time

import pytest

from bench.soaking.answer import DONE, KEEPALIVE, Answer
from bench.soaking.record import Record

FRAME = b'data: {"choices":[]}\n\n'
ERROR = b'data: {"error": {"message": "The upstream stream broke off."}}\n\n'


def chunks(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def answer(status: int, body: bytes, *, fields: str = "") -> bytes:
    head = f"HTTP/1.1 {status} Status\r\nX-Request-Id: soak-1\r\nContent-Length: {len(body)}\r\n{fields}\r\n"
    return head.encode() + body


def stream(*pieces: bytes, identity: str = "soak-1") -> bytes:
    fields = "Content-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked"
    return f"HTTP/1.1 200 OK\r\nX-Request-Id: {identity}\r\n{fields}\r\n\r\n".encode() + chunks(*pieces)


def error(code: str) -> bytes:
    return json.dumps({"error": {"code": code}}).encode()


def record_of(data: bytes, *, step: int = 1) -> Record:
    record, taken = Record("soak-1", "stream", time.monotonic()), Answer()
    for at in range(0, len(data), step):
        taken.take(data[at : at + step])
    taken.describe(record)
    return record


@pytest.mark.parametrize(
    ("data", "outcome"),
    [
        (answer(200, b"{}"), "ok"),
        (answer(502, error("upstream_unavailable")) + answer(400, b"another"), "upstream error"),
        (stream(FRAME, DONE), "ok"),
        (stream(FRAME, ERROR), "upstream error"),
        (answer(502, error("upstream_unavailable")), "upstream error"),
        (answer(429, error("from_upstream")), "upstream error"),
        (answer(429, error("rate_limit_exceeded")), "shed"),
        (answer(503, error("overloaded")), "shed"),
        (answer(401, error("invalid_api_key")), "refused"),
        (stream(FRAME, DONE)[:-1], "broken"),
        (answer(200, b"{}")[:-1], "broken"),
        (b"HTTP/1.1 200", "broken"),
        (b"", "broken"),
    ],
    ids=str,
)
@pytest.mark.parametrize("step", [1, 1000])
def test_outcome_is_told_by_the_whole_answer_however_it_is_cut(data: bytes, outcome: str, step: int) -> None:
    record = record_of(data, step=step)
    assert (record.outcome, record.fault) == (outcome, "")


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_comments_of_the_proxy_are_left_out_of_the_hash_and_not_of_the_size(step: int) -> None:
    record = record_of(stream(FRAME, KEEPALIVE, FRAME + KEEPALIVE, DONE), step=step)
    assert record.sha256 == hashlib.sha256(FRAME + FRAME + DONE).hexdigest()
    assert record.body_bytes == 2 * len(FRAME) + 2 * len(KEEPALIVE) + len(DONE)


@pytest.mark.parametrize(
    "data",
    [
        stream(FRAME),
        stream(FRAME, ERROR, DONE),
        stream(FRAME, FRAME[:5]),
        stream(FRAME, DONE, b"x"),
        stream(FRAME, DONE, identity="soak-2"),
        answer(500, error("internal_error")),
    ],
    ids=["no end", "two ends", "half a frame", "bytes after the end", "another's answer", "an error of our own"],
)
def test_answer_that_should_not_be_is_told(data: bytes) -> None:
    assert record_of(data, step=1000).fault
