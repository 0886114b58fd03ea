"""A section of `token_sources` → its source: one function a type, found in one table."""

from collections.abc import Callable, Mapping
from typing import Any

import httpx

from config import sources as sections
from config.sources import TokenSource
from proxy.token_sources.local import build_command, build_file, build_python
from proxy.token_sources.oauth import build_client_credentials, build_token_exchange
from proxy.token_sources.secrets import reader, revealed
from proxy.tokens.sources.base import Source
from proxy.tokens.sources.endpoint import Observer, TokenEndpoint
from proxy.tokens.sources.http_json import HttpJsonSource
from proxy.tokens.sources.reply import ReplyShape
from proxy.tokens.sources.static import StaticSource
from proxy.upstreams.tls import ClientTls


def build_source(section: TokenSource, observe: Observer | None = None) -> Source:
    """The source of a section; `observe` is given each reply of a token endpoint, good or not."""
    if section.type in _OVER_HTTP:
        return _OVER_HTTP[section.type](section, observe)
    return _BUILDERS[section.type](section)


def _static(section: sections.StaticSource) -> Source:
    return StaticSource(reader(section.token))


def _http_json(section: sections.HttpJsonSource, observe: Observer | None) -> Source:
    shape = ReplyShape(
        token=section.token_pointer,
        expires_in=section.expires_in_pointer,
        expires_at=section.expires_at_pointer,
        default_lifetime_s=section.default_lifetime_s,
    )
    tls = ClientTls(section.ca_bundle, section.client_cert)
    endpoint = TokenEndpoint(section.url, method=section.method, tls=tls.context, observe=observe)
    return HttpJsonSource(endpoint, lambda: _request_parts(section), shape)


def _request_parts(section: sections.HttpJsonSource) -> dict[str, Any]:
    """httpx's parts of the configured request, with the secrets as they are at this moment."""
    parts: dict[str, Any] = {}
    for name, value in (
        ("headers", section.headers),
        ("json", section.json_body),
        ("data", section.form),
    ):
        if value:
            parts[name] = revealed(value)
    if section.query:  # httpx's params stand in place of the URL's own
        parts["params"] = httpx.URL(section.url).params.merge(revealed(section.query))
    return parts


_OVER_HTTP: Mapping[str, Callable[[Any, Observer | None], Source]] = {
    "http_json": _http_json,
    "client_credentials": build_client_credentials,
    "token_exchange": build_token_exchange,
}
_BUILDERS: Mapping[str, Callable[[Any], Source]] = {
    "command": build_command,
    "file": build_file,
    "static": _static,
    "python": build_python,
}
