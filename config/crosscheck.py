"""Checks between values, sections and list items, on the document before the schema.

pydantic skips a check of a whole model when one of its fields is bad. These run in any case, so that one
start shows all faults; hence they pass over values of a wrong type, which the schema reports.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from config.addresses import is_loopback, split_bind
from config.errors import Fault, Location
from config.schema import Server
from config.upstreams import Upstream

_Faults = Iterator[tuple[Location, str]]

# What each auth_method needs, and what else is of use to it alone. A client certificate may be there beside any method:
# RFC 8705 §3 binds tokens to it.
_NEEDED: Mapping[str, str | None] = {
    "client_secret_basic": "client_secret",
    "client_secret_post": "client_secret",
    "private_key_jwt": "private_key",
    "tls_client_auth": "client_cert",
    "none": None,
}
_FOR_ASSERTIONS = ("key_id", "signing_alg", "assertion_audience")


def cross_faults(document: Mapping[str, Any]) -> _Faults:
    """Location and text of each fault that no single value shows."""
    yield from _open_without_keys(document)
    yield from _unknown_sources(document)
    yield from _members_at_odds(document)
    yield from _client_credentials_at_odds(document)
    yield from _single_active_unshared(document)
    yield from _store_url(document)
    yield from _token_header_in_headers(document)
    yield from _fail_overs_to_nobody(document)
    yield from _repeated(document, "upstreams", "name")
    yield from _repeated(document, "client_keys", "label")
    # Hex digits mean the same in both cases.
    yield from _repeated(document, "client_keys", "sha256", normalise=str.lower)


def _open_without_keys(document: Mapping[str, Any]) -> _Faults:
    server = document.get("server", {})
    bind = server.get("bind", Server().bind) if isinstance(server, dict) else None
    if document.get("client_keys", []) != [] or not isinstance(bind, str):
        return
    try:
        host, _ = split_bind(bind)
    except Fault:
        return
    if not is_loopback(host):
        yield ("client_keys",), "must hold at least one key, as server.bind is not a loopback address"


def _unknown_sources(document: Mapping[str, Any]) -> _Faults:
    sources = document.get("token_sources", {})
    known = list(sources) if isinstance(sources, dict) else []
    for index, upstream in _items(document, "upstreams"):
        name = upstream.get("token_source")
        if isinstance(name, str) and name not in known:
            choices = ", ".join(["null", *known])
            yield ("upstreams", index, "token_source"), f"must name one of token_sources: {choices}"


def _members_at_odds(document: Mapping[str, Any]) -> _Faults:
    for name, source in _sources(document):
        if source.get("json") and source.get("form"):
            yield ("token_sources", name, "form"), "must be left out beside json: a request has one body"
        if None not in (source.get("expires_at_pointer"), source.get("expires_in_pointer")):
            yield ("token_sources", name, "expires_in_pointer"), "must be left out beside expires_at_pointer"
        if source.get("type") == "command" and source.get("token_pointer") is None:
            for pointer in ("expires_at_pointer", "expires_in_pointer"):
                if source.get(pointer) is not None:
                    yield ("token_sources", name, pointer), "needs token_pointer beside it"
        is_exchange = source.get("type") == "token_exchange"
        if is_exchange and source.get("actor_token_type") is not None and source.get("actor_token") is None:
            yield ("token_sources", name, "actor_token_type"), "needs actor_token beside it"


def _client_credentials_at_odds(document: Mapping[str, Any]) -> _Faults:
    """What proves who we are: each method has its own means, and one that is given and not used is a mistake."""
    for name, source in _sources(document):
        method = source.get("auth_method", "client_secret_basic")
        if source.get("type") not in ("client_credentials", "token_exchange") or method not in list(_NEEDED):
            continue
        if method == "none" and source["type"] == "client_credentials":
            text = "must not be none: the grant is for clients that prove who they are (RFC 6749 §4.4)"
            yield ("token_sources", name, "auth_method"), text
            continue
        needed = _NEEDED[method]
        if needed is not None and source.get(needed) is None:
            yield ("token_sources", name, needed), f"is required for auth_method {method}"
        useless = {"client_secret", "private_key"} - {needed}
        if needed != "private_key":
            useless.update(_FOR_ASSERTIONS)
        for member in source:
            if member in useless and source[member] is not None:
                yield ("token_sources", name, member), f"must be left out with auth_method {method}"


def _single_active_unshared(document: Mapping[str, Any]) -> _Faults:
    """Workers that each fetch for themselves would end each other's tokens without end."""
    store = document.get("token_store", {})
    if not isinstance(store, dict) or store.get("type") != "memory":
        return
    for name, source in _sources(document):
        if source.get("issuer") == "single_active":
            yield ("token_sources", name, "issuer"), "must not be single_active with token_store type memory"


def _store_url(document: Mapping[str, Any]) -> _Faults:
    store = document.get("token_store", {})
    if not isinstance(store, dict):
        return
    is_redis = store.get("type") == "redis"
    if is_redis and store.get("url") is None:
        yield ("token_store", "url"), "is required for type redis"
    for member in ("url", "ca_bundle"):
        if not is_redis and store.get(member) is not None:
            yield ("token_store", member), "must be left out but for type redis"


def _token_header_in_headers(document: Mapping[str, Any]) -> _Faults:
    for index, upstream in _items(document, "upstreams"):
        headers = upstream.get("headers")
        token_header = str(upstream.get("token_header", Upstream.model_fields["token_header"].default))
        for name in headers if isinstance(headers, dict) else ():
            if name.lower() == token_header.lower():
                yield (
                    ("upstreams", index, "headers", name),
                    "must not be the token_header: it carries the token",
                )


def _fail_overs_to_nobody(document: Mapping[str, Any]) -> _Faults:
    names = [str(upstream.get("name")) for _, upstream in _items(document, "upstreams")]
    for index, upstream in _items(document, "upstreams"):
        second = upstream.get("fail_over_to")
        others = [name for name in names if name != upstream.get("name")]
        if isinstance(second, str) and second not in others:
            choices = ", ".join(["null", *others])
            yield ("upstreams", index, "fail_over_to"), f"must name another one of upstreams: {choices}"


def _repeated(document: Mapping[str, Any], section: str, member: str, normalise: Callable[[str], str] = str) -> _Faults:
    first: dict[str, int] = {}
    for index, item in _items(document, section):
        value = item.get(member)
        if not isinstance(value, str):
            continue
        earlier = first.setdefault(normalise(value), index)
        if earlier != index:
            yield (section, index, member), f"must not repeat that of {section}[{earlier}]"


def _items(document: Mapping[str, Any], section: str) -> Iterator[tuple[int, dict[str, Any]]]:
    items = document.get(section)
    for index, item in enumerate(items if isinstance(items, list) else []):
        if isinstance(item, dict):
            yield index, item


def _sources(document: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    sources = document.get("token_sources")
    for name, source in sources.items() if isinstance(sources, dict) else ():
        if isinstance(source, dict):
            yield name, source
