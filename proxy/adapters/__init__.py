"""Adapters: an API that is not OpenAI's, in one file. What such a file needs is exported here (docs/adapters.md)."""

from proxy.adapters.base import AdaptedRequest, Adapter, ApiError, text_of
from proxy.adapters.chat_stream import ChatStream
from proxy.adapters.shapes import choice, completion, embedding_list, usage
from proxy.errors import InvalidRequest

__all__ = [
    "AdaptedRequest",
    "Adapter",
    "ApiError",
    "ChatStream",
    "InvalidRequest",
    "choice",
    "completion",
    "embedding_list",
    "text_of",
    "usage",
]
