"""The store that the running proxy shares, opened beside it."""

from config.schema import TokenStore
from config.sources import TokenSource
from proxy.token_sources import build_store
from proxy.tokens.sources.base import TokenFetchError
from proxy.tokens.stores.base import Store


def open_store(section: TokenSource, token_store: TokenStore) -> Store:
    """The store of a source, read once: by that it has learnt whether it reaches those that it shares with.

    Raises TokenFetchError: a secret that the store's name is made of cannot be read, or Redis' client refuses the URL.
    """
    try:
        store = build_store(section, token_store)
        store.load()
    except (ValueError, TypeError):
        # Not chained: the client's text quotes a part of the URL, which may be one of the password.
        raise TokenFetchError("token_store: its url, or ca_bundle beside it, cannot be used") from None
    return store
