"""The model tokens that an answer says it took, read without parsing the rest of it; no I/O.

Looks at the ends of an answer only: servers write `usage` behind the content, and some before it (llama.cpp's
embeddings). Text of the model cannot pass for it, as a quote inside of a JSON string is escaped. Called when an answer
is through; nobody relies on the figures but the metrics.
"""

import re

import jiter

TAIL_BYTES = 4096
HEAD_BYTES = 1024
TOKENS_MOST = 10**9
_KEY = b'"usage"'
_TRIES_MOST = 8  # `"usage": null` stands in every frame of some streams

# An object with at most two levels of details in it. Possessive, so that no text takes longer than one pass.
_STRING = rb'"(?:[^"\\]++|\\.)*+"'
_FLAT = rb'\{(?:[^{}"]++|' + _STRING + rb")*+\}"
_NESTED = rb'\{(?:[^{}"]++|' + _STRING + rb"|" + _FLAT + rb")*+\}"
_VALUE = re.compile(rb'\s*+:\s*+(\{(?:[^{}"]++|' + _STRING + rb"|" + _NESTED + rb")*+\})", re.DOTALL)


def read_usage(tail: bytes) -> tuple[int, int] | None:
    """Prompt and completion tokens by the last `usage` object of a JSON answer or of the last frames of a stream.

    `tail` may be the whole answer, however long. Embeddings take no completion tokens: 0. None where there is no such
    object, or one that is odd in any way.
    """
    found = _last_object(tail[-TAIL_BYTES:])
    if found is None and len(tail) > TAIL_BYTES:
        found = _last_object(tail[:HEAD_BYTES])
    return None if found is None else _counts(found)


def _last_object(text: bytes) -> bytes | None:
    at = len(text)
    for _ in range(_TRIES_MOST):
        at = text.rfind(_KEY, 0, at)
        if at < 0:
            return None
        value = _VALUE.match(text, at + len(_KEY))
        if value is not None and text[at - 1 : at] != b"\\":
            return value[1]
    return None


def _counts(text: bytes) -> tuple[int, int] | None:
    try:
        usage = jiter.from_json(text)
    except ValueError:
        return None
    prompt = usage.get("prompt_tokens", usage.get("input_tokens"))
    completion = usage.get("completion_tokens", usage.get("output_tokens", 0))
    return (prompt, completion) if _is_count(prompt) and _is_count(completion) else None


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= TOKENS_MOST
