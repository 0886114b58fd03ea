"""Secrets of a section, read at the moment of use: a secret that was rotated counts at the next fetch."""

from collections.abc import Callable, Mapping
from typing import Any

from config import ConfigError, SecretRef
from proxy.tokens.sources.base import TokenFetchError


def reader(secret: SecretRef) -> Callable[[], str]:
    """A function that reads the secret anew; it raises TokenFetchError where the secret's file cannot be read."""

    def read() -> str:
        try:
            return secret.reveal()
        except ConfigError as error:
            raise TokenFetchError(str(error)) from None

    return read


def revealed(value: Any) -> Any:
    """The value with each reference in it replaced by its secret, as of now."""
    if isinstance(value, SecretRef):
        return reader(value)()
    if isinstance(value, Mapping):
        return {name: revealed(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [revealed(item) for item in value]
    return value
