"""Embeddings and rerank scores that depend on nothing but the input, so that tests can foretell them."""

import base64
import hashlib
import math
import struct
from typing import Any

from sandbox.answers.shape import Answer, json_answer
from sandbox.answers.wording import BodyError, count_model_tokens, model_of, read_list, read_number, text_of

DEFAULT_DIMENSIONS = 8


def answer_embeddings(body: dict[str, Any]) -> Answer:
    """Answer POST /v1/embeddings: for strings or token arrays, floats or base64 of little-endian float32."""
    inputs = _inputs(body.get("input"))
    dimensions = int(read_number(body, "dimensions", DEFAULT_DIMENSIONS, 1, 16_384))
    encoding = body.get("encoding_format") or "float"
    if encoding not in ("float", "base64"):
        raise BodyError("encoding_format must be float or base64")
    packed = [_vector(text, dimensions) for text in inputs]
    vectors = [_to_base64(vector) if encoding == "base64" else unpack(vector) for vector in packed]
    data = [{"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(vectors)]
    used = sum(map(count_model_tokens, inputs))
    usage = {"prompt_tokens": used, "total_tokens": used}
    return json_answer({"object": "list", "data": data, "model": model_of(body), "usage": usage})


def _to_base64(vector: bytes) -> str:
    return base64.b64encode(vector).decode()


def unpack(vector: bytes) -> list[float]:
    """Read little-endian float32 values."""
    return list(struct.unpack(f"<{len(vector) // 4}f", vector))


def _inputs(value: Any) -> list[str]:
    """Get a text for each input; a token array stands for itself by its numbers."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or not value:
        raise BodyError("input must be a string or a list that is not empty")
    if all(_is_token(item) for item in value):
        return [str(value)]
    return [_input(item) for item in value]


def _input(item: Any) -> str:
    if isinstance(item, str):
        return item
    if isinstance(item, list) and item and all(_is_token(number) for number in item):
        return str(item)
    raise BodyError("each input must be a string or a list of numbers")


def _is_token(item: Any) -> bool:
    return isinstance(item, int) and not isinstance(item, bool)


def _vector(text: str, dimensions: int) -> bytes:
    """Make a vector of length 1 from a hash of the text; packed as float32, so both encodings agree."""
    noise = hashlib.shake_128(text.encode("utf-8", "backslashreplace")).digest(4 * dimensions)
    numbers = struct.unpack(f"<{dimensions}i", noise)
    length = math.hypot(*numbers) or 1.0
    return struct.pack(f"<{dimensions}f", *(number / length for number in numbers))


def answer_rerank(body: dict[str, Any]) -> Answer:
    """Answer POST /v1/rerank: the share of the query's words that a document has, best first."""
    query, documents = body.get("query"), [_document_text(each) for each in read_list(body, "documents")]
    if not isinstance(query, str) or not documents:
        raise BodyError("query must be a string and documents a list that is not empty")
    top = int(read_number(body, "top_n", len(documents), 1, 1_000_000))
    scores = [_score(query, document) for document in documents]
    order = sorted(range(len(scores)), key=lambda index: -scores[index])[:top]
    used = sum(map(count_model_tokens, [query, *documents]))
    results = [{"index": index, "relevance_score": scores[index]} for index in order]
    return json_answer({"model": model_of(body), "results": results, "usage": {"total_tokens": used}})


def _document_text(document: Any) -> str:
    return text_of([document] if isinstance(document, dict) else document)


def _score(query: str, document: str) -> float:
    words = set(query.lower().split())
    return round(len(words & set(document.lower().split())) / len(words), 6) if words else 0.0
