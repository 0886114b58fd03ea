"""`token_store` → the store of one source's token."""

import json
from hashlib import sha256

from loguru import logger

from config.schema import TokenStore
from config.sources import TokenExchangeSource, TokenSource
from proxy.token_sources.secrets import revealed
from proxy.tokens.stores.base import Store
from proxy.tokens.stores.file import FileStore, StoreError, open_folder
from proxy.tokens.stores.memory import MemoryStore

# What is read from this host costs nothing to read again, and another process's copy could only be older.
_READ_FROM_THE_HOST = ("static", "file")


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
    from proxy.tokens.stores.redis import RedisStore, connect

    url = "" if store.url is None else store.url.reveal()
    return RedisStore(connect(url, store.ca_bundle), name, _host_store(name))


def _digest(section: TokenSource) -> str:
    """Tells definitions apart, secrets included: a changed secret must not find the token of the one before."""
    definition = {name: getattr(section, name) for name in type(section).model_fields}
    if isinstance(section, TokenExchangeSource):
        # In a file they are short-lived: by its text, workers that started at different times would share nothing.
        for name in ("subject_token", "actor_token"):
            definition[name] = getattr(definition[name], "path", None) or definition[name]
    return sha256(json.dumps(revealed(definition), sort_keys=True, default=str).encode()).hexdigest()[:32]
