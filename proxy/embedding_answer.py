"""`encoding_format: base64` where the upstream ignores it: floats become little-endian float32, as OpenAI sends them.

The node client asks for base64 and reads whatever comes as such, so floats would reach its user as garbage. Pure.
"""

import base64
import json
import re
import sys
from array import array
from typing import Any

import jiter

from proxy.errors import UpstreamUnavailable

_FLOATS = re.compile(rb'"embedding"\s*:\s*\[')


def to_base64(answer: bytes) -> bytes:
    """The answer with every embedding as base64; the bytes that came where they are so already.

    Raises UpstreamUnavailable for an answer that cannot be read.
    """
    if not _FLOATS.search(answer):
        return answer
    try:
        document = jiter.from_json(answer, cache_mode="keys")
        for item in document["data"]:
            if isinstance(item["embedding"], list):
                item["embedding"] = _encode(item["embedding"])
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise UpstreamUnavailable(cause="an embeddings answer that cannot be read") from error
    return json.dumps(document, ensure_ascii=False).encode()


def _encode(floats: list[Any]) -> str:
    packed = array("f", floats)
    if sys.byteorder == "big":
        packed.byteswap()
    return base64.b64encode(packed.tobytes()).decode("ascii")
