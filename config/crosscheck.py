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


def cross_faults(document: Mapping[str, Any]) -> _Faults:
    """Location and text of each fault that no single value shows."""
    yield from _open_without_keys(document)
    yield from _unknown_sources(document)
    yield from _two_of_one_kind(document)
    yield from _token_header_in_headers(document)
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


def _two_of_one_kind(document: Mapping[str, Any]) -> _Faults:
    sources = document.get("token_sources")
    for name, source in sources.items() if isinstance(sources, dict) else ():
        if not isinstance(source, dict) or source.get("type") != "http_json":
            continue
        if source.get("json") and source.get("form"):
            yield ("token_sources", name, "form"), "must be left out beside json: a request has one body"
        if None not in (source.get("expires_at_pointer"), source.get("expires_in_pointer")):
            yield ("token_sources", name, "expires_in_pointer"), "must be left out beside expires_at_pointer"


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
