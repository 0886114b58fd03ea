"""A token that never expires, such as a vendor's API key; read anew only when an upstream refuses it."""

import math
from collections.abc import Callable

from proxy.tokens.sources.base import Grant, Source
from proxy.tokens.sources.reply import check_token


class StaticSource(Source):
    def __init__(self, read_token: Callable[[], str]) -> None:
        self._read_token = read_token

    def fetch(self) -> Grant:
        return Grant(check_token(self._read_token(), "static"), math.inf)
