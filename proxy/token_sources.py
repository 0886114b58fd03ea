"""From a `token_sources` section to the source that it describes and the store of its token.

Secrets stay references until a fetch needs them.
"""

import json
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, Literal

from loguru import logger

from config import ConfigError, SecretRef
from config.sources import ClientCredentialsSource as ClientCredentialsSection
from config.sources import HttpJsonSource as HttpJsonSection
from config.sources import StaticSource as StaticSection
from config.sources import TokenSource as TokenSourceSection
from proxy.tokens.sources.base import Source, TokenFetchError
from proxy.tokens.sources.client_credentials import ClientCredentialsSource
from proxy.tokens.sources.endpoint import TokenEndpoint
from proxy.tokens.sources.http_json import HttpJsonSource
from proxy.tokens.sources.reply import ReplyShape
from proxy.tokens.sources.static import StaticSource
from proxy.tokens.stores.base import Store
from proxy.tokens.stores.file import FileStore, StoreError, open_folder
from proxy.tokens.stores.memory import MemoryStore
from proxy.upstreams.tls import client_context


def build_source(section: TokenSourceSection) -> Source:
    if isinstance(section, StaticSection):
        return StaticSource(_reader(section.token))
    if isinstance(section, ClientCredentialsSection):
        return _client_credentials(section)
    return _http_json(section)


def build_store(section: TokenSourceSection, kind: Literal["file", "memory"]) -> Store:
    """The store for the token of a source. Without a folder of ours alone each worker keeps its own token."""
    if kind == "memory" or isinstance(section, StaticSection):
        return MemoryStore()
    try:
        return FileStore(open_folder(), _digest(section))
    except StoreError as error:
        logger.error("token store: {}; each worker goes on by itself", error)
        return MemoryStore()


def _digest(section: TokenSourceSection) -> str:
    """Tells definitions apart, secrets included: a changed secret must not find the token of the one before."""
    revealed = _revealed({name: getattr(section, name) for name in type(section).model_fields})
    return sha256(json.dumps(revealed, sort_keys=True, default=str).encode()).hexdigest()[:32]


def _client_credentials(section: ClientCredentialsSection) -> Source:
    fields = {"scope": section.scope, "audience": section.audience}
    return ClientCredentialsSource(
        TokenEndpoint(section.token_url, ssl_context=client_context(section.ca_bundle)),
        client_id=section.client_id,
        read_secret=_reader(section.client_secret),
        auth_method=section.auth_method,
        fields={name: value for name, value in fields.items() if value is not None},
        default_lifetime_s=section.default_lifetime_s,
    )


def _http_json(section: HttpJsonSection) -> Source:
    shape = ReplyShape(
        token=section.token_pointer,
        expires_in=section.expires_in_pointer,
        expires_at=section.expires_at_pointer,
        default_lifetime_s=section.default_lifetime_s,
    )
    endpoint = TokenEndpoint(section.url, method=section.method, ssl_context=client_context(section.ca_bundle))
    return HttpJsonSource(endpoint, lambda: _request_parts(section), shape)


def _request_parts(section: HttpJsonSection) -> dict[str, Any]:
    """httpx's parts of the configured request, with the secrets as they are at this moment."""
    parts: dict[str, Any] = {}
    for name, value in (
        ("headers", section.headers),
        ("params", section.query),
        ("json", section.json_body),
        ("data", section.form),
    ):
        if value:
            parts[name] = _revealed(value)
    return parts


def _revealed(value: Any) -> Any:
    if isinstance(value, SecretRef):
        return _reader(value)()
    if isinstance(value, Mapping):
        return {name: _revealed(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_revealed(item) for item in value]
    return value


def _reader(secret: SecretRef) -> Callable[[], str]:
    def read() -> str:
        try:
            return secret.reveal()
        except ConfigError as error:
            raise TokenFetchError(str(error), refused=True) from None

    return read
