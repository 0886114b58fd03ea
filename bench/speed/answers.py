"""What the bench's upstream says: whole answers made once, and the frames of a stream.

The model's name says what is wanted, so every proxy passes it on unharmed: `small`, `embed-64x1024` (texts x floats),
`stream-100x10` (frames x per second); `-tls` behind the name changes nothing. Caller: upstream.py.
"""

import json
import random
import re
from typing import Any

STAMP = b"@ns"  # before the 19 digits of CLOCK_MONOTONIC at the moment of sending
STAMP_DIGITS = 19
DONE = b"data: [DONE]\n\n"
LAST_CHUNK = b"0\r\n\r\n"
_CREATED = 1_790_000_000
_SHAPE = re.compile(r"(embed|stream)-(\d+)x([\d.]+)")
# What gateways send beside the length and the type; each proxy has to judge every field.
_FIELDS = (
    b"Date: Sat, 21 Nov 2026 12:00:00 GMT\r\nServer: bench\r\nX-Request-Id: req_0123456789abcdef\r\n"
    b"OpenAI-Version: 2020-10-01\r\nOpenAI-Processing-Ms: 12\r\n"
    b"X-RateLimit-Limit-Requests: 10000\r\nX-RateLimit-Remaining-Requests: 9999\r\n"
)
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\n"
    + _FIELDS
    + b"Transfer-Encoding: chunked\r\n\r\n"
)


def json_answer(document: Any, status: str = "200 OK") -> bytes:
    """Head and body of an answer."""
    body = json.dumps(document, separators=(",", ":")).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + _FIELDS + b"\r\n" + body


def completion(model: str) -> bytes:
    """A short chat completion."""
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "Hello! How can I help you today?",
        "refusal": None,
        "annotations": [],
    }
    usage = {"prompt_tokens": 19, "completion_tokens": 10, "total_tokens": 29}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    return json_answer(
        {
            "id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
            "object": "chat.completion",
            "created": _CREATED,
            "model": model,
            "choices": [choice],
            "usage": usage,
            "service_tier": "default",
            "system_fingerprint": "fp_0123456789",
        }
    )


def embeddings(model: str, texts: int, floats: int) -> bytes:
    """Vectors as JSON numbers of six decimals: 64 x 1,024 of them are 0.6 MB."""
    numbers = random.Random(7)
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": [round(numbers.uniform(-0.1, 0.1), 6) for _ in range(floats)],
        }
        for index in range(texts)
    ]
    usage = {"prompt_tokens": 8 * texts, "total_tokens": 8 * texts}
    return json_answer({"object": "list", "data": data, "model": model, "usage": usage})


def shape_of(model: str) -> tuple[str, int, float]:
    """`("embed", texts, floats)`, `("stream", frames, per second)`, or `("small", 0, 0.0)` for any other name."""
    match = _SHAPE.match(model)
    return (match[1], int(match[2]), float(match[3])) if match else ("small", 0, 0.0)


class Frames:
    """The frames of one stream, each in an HTTP chunk of its own.

    A frame is `head + 19 digits of the clock + tail`; `head` and `tail` hold the framing of the chunk too, of which
    `skip` bytes stand in front of the data and 2 behind.
    """

    __slots__ = ("first", "head", "last", "skip", "tail")

    def __init__(self, model: str, identity: str) -> None:
        frame = _event(model, identity, {"content": f"{STAMP.decode()}{'0' * STAMP_DIGITS} tokens"})
        begin, end = frame.split(STAMP + b"0" * STAMP_DIGITS)
        size = b"%x\r\n" % len(frame)
        self.skip = len(size)
        self.head = size + begin + STAMP
        self.tail = end + b"\r\n"
        self.first = _event(model, identity, {"role": "assistant", "content": "", "refusal": None})
        self.last = (_event(model, identity, {}, "stop"), _event(model, identity), DONE)


def chunk(data: bytes) -> bytes:
    """RFC 9112 §7.1."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def _event(model: str, identity: str, delta: dict[str, Any] | None = None, finish_reason: str | None = None) -> bytes:
    """A `chat.completion.chunk`; without a delta the one with the usage."""
    document: dict[str, Any] = {
        "id": f"chatcmpl-{identity}",
        "object": "chat.completion.chunk",
        "created": _CREATED,
        "model": model,
        "system_fingerprint": "fp_0123456789",
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}],
    }
    if delta is None:
        usage = {"prompt_tokens": 19, "completion_tokens": 100, "total_tokens": 119}
        document |= {"choices": [], "usage": usage}
    return b"data: " + json.dumps(document, separators=(",", ":")).encode() + b"\n\n"
