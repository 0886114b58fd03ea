"""A token from any JSON endpoint: a company's own, with its own names for things."""

from collections.abc import Callable
from typing import Any

from proxy.tokens.sources.base import Grant, Source
from proxy.tokens.sources.endpoint import TokenEndpoint
from proxy.tokens.sources.reply import ReplyShape, read_grant


class HttpJsonSource(Source):
    """Asks an endpoint with a configured request and finds the token in its JSON reply."""

    def __init__(self, endpoint: TokenEndpoint, build_request: Callable[[], dict[str, Any]], shape: ReplyShape) -> None:
        """`build_request` gives httpx's parts of a request (headers, json or data, params), secrets read anew."""
        self._endpoint = endpoint
        self._build_request = build_request
        self._shape = shape

    def fetch(self) -> Grant:
        return read_grant(self._endpoint.ask(**self._build_request()), self._shape)

    def close(self) -> None:
        self._endpoint.close()
