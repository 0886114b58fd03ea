"""`token_store` → the store of one source's token."""

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from loguru import logger

from config import SecretRef
from config.schema import TokenStore
from config.sources import TokenSource
from proxy.tokens.stores.base import Store
from proxy.tokens.stores.file import FileStore, StoreError, open_folder
from proxy.tokens.stores.memory import MemoryStore

# What is read from this host costs nothing to read again, and another process's copy could only be older.
_READ_FROM_THE_HOST = ("static", "file")
# Says nothing about the token, and may differ between hosts that share it.
_OF_THIS_HOST = ("ca_bundle",)
_SHORT_LIVED = ("subject_token", "actor_token")


def build_store(section: TokenSource, store: TokenStore) -> Store:
    """The store for the token of a source; where sources share nothing, each worker keeps its own token."""
    if store.type == "memory" or section.type in _READ_FROM_THE_HOST:
        return MemoryStore()
    name = _digest(section)
    return _redis(store, name) if store.type == "redis" else _host_store(name)


def is_single_active(section: TokenSource) -> bool:
    """Whether the issuer ends the old token when it gives a new one, so that its users must share."""
    return getattr(section, "issuer", None) == "single_active"


def _host_store(name: str) -> Store:
    try:
        return FileStore(open_folder(), name)
    except StoreError as error:
        logger.error("token store: {}; each worker goes on by itself", error)
        return MemoryStore()


def _redis(store: TokenStore, name: str) -> Store:
    # Imported where it is used: it takes 20 MB in each worker, and most have no use for it.
    from proxy.redis_client import connect
    from proxy.tokens.stores.redis import RedisStore

    url = "" if store.url is None else store.url.reveal()
    return RedisStore(connect(url, store.ca_bundle), name, _host_store(name))


def _digest(section: TokenSource) -> str:
    """Tells definitions apart, secrets included: a changed secret must not find the token of the one before."""
    definition = {name: getattr(section, name) for name in type(section).model_fields if name not in _OF_THIS_HOST}
    versions = _named(definition, by_version=not is_single_active(section))
    for name in _SHORT_LIVED:
        if name in definition:
            versions[name] = _named(definition[name], by_version=False)
    return sha256(json.dumps(versions, sort_keys=True, default=str).encode()).hexdigest()[:32]


def _named(value: Any, *, by_version: bool) -> Any:
    """The value with a name in the place of each secret: its version, or else the file that holds it.

    By the file where users with different versions must share all the same: those of an issuer that would end each
    other's tokens, and those who started before and after the renewal of a short-lived secret.
    """
    if isinstance(value, SecretRef):
        return value.version if by_version or value.path is None else str(value.path)
    if isinstance(value, Mapping):
        return {name: _named(item, by_version=by_version) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_named(item, by_version=by_version) for item in value]
    return value
