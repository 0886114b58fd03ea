"""The OpenAPI 3.1 document of the routes, made from what the code is: the app's map of routes and the tree of errors.

It says what the proxy itself asks of a request and answers; all else is between caller and upstream. Pure. `app` hands
it the routes, `blueprints/operations` serves it.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Literal

from werkzeug.routing import Rule

from proxy.errors import (
    BodyTimeout,
    BodyTooLarge,
    InternalError,
    InvalidChunks,
    InvalidClientKey,
    InvalidJson,
    InvalidRequest,
    MethodNotAllowed,
    ModelNotAllowed,
    ModelNotFound,
    ProxyError,
    RateLimitExceeded,
    RequestError,
    RouteNotFound,
    ServiceError,
    as_openai_error,
)

Document = dict[str, Any]
Errors = list[type[ProxyError]]
# Who is let in: callers with a key, anyone where the config has no keys, operators with an admin key.
Guard = Literal["key", "no key", "admin key"]

# Flask gives them to every route.
_GIVEN_METHODS = frozenset({"HEAD", "OPTIONS"})
_VARIABLE = re.compile(r"<(?:[^:<>]+:)?([^<>]+)>")
_OF_NO_ROUTE = frozenset({RouteNotFound, MethodNotAllowed})
_OF_A_BODY = frozenset({InvalidJson, InvalidChunks, ModelNotAllowed, BodyTimeout, BodyTooLarge})
_OF_A_KEY = frozenset({InvalidClientKey, ModelNotAllowed, RateLimitExceeded})
_OF_AN_OPERATION: Errors = [InvalidRequest, InvalidClientKey, InternalError]
_FIELDS = {401: "WWW-Authenticate", 429: "Retry-After", 503: "Retry-After"}
# What body.read_body() asks for; each other member is the upstream's business.
_BODY: Document = {
    "type": "object",
    "required": ["model"],
    "properties": {"model": {"type": "string", "minLength": 1}, "stream": {"type": ["boolean", "null"]}},
    "additionalProperties": True,
}
# What form.FormReader asks for.
_FORM: Document = {
    "type": "object",
    "required": ["model"],
    "properties": {"model": {"type": "string", "minLength": 1}, "file": {"type": "string", "format": "binary"}},
    "additionalProperties": True,
}
_WITH_A_FORM = frozenset({"audio_transcriptions", "audio_translations"})
_ABOUT = (
    "Each other member of a request, and each good answer, is the upstream's as it came. "
    "So is an upstream's own error, whatever its status and shape."
)
_OWN_ANSWERS: dict[str, Document] = {
    "readyz": {"503": {"description": "Not ready; `reason` says why."}},
    "status_page": {"200": {"description": "The same as /status, for a browser.", "content": {"text/html": {}}}},
}


def build_document(rules: Iterable[Rule], *, prefixes: Sequence[str], guards: Mapping[str, Guard]) -> Document:
    """The document, as JSON has it: each rule is one of its paths below one of the servers that hold for that path.

    `prefixes`: what may stand before a route, "" for nothing; `guards`: by blueprint, as registered; none: open to all.
    """
    servers = [_server(prefix) for prefix in dict.fromkeys(prefixes)]
    paths: dict[str, Document] = {}
    for rule in rules:
        prefix = max((prefix for prefix in prefixes if rule.rule.startswith(f"{prefix}/")), key=len, default="")
        item = paths.setdefault(_VARIABLE.sub(r"{\1}", rule.rule.removeprefix(prefix)), {"servers": []})
        if _server(prefix) not in item["servers"]:
            item["servers"].append(_server(prefix))
        item.update(_operations(rule, guards.get(rule.endpoint.rpartition(".")[0])))
    for item in paths.values():
        if len(item["servers"]) == len(servers):
            del item["servers"]  # those of the document
    return {
        "openapi": "3.1.0",
        "info": {"title": "LLM proxy", "version": "1", "description": _ABOUT},
        "servers": servers,
        "paths": paths,
        "components": _components(),
    }


def _server(prefix: str) -> Document:
    return {"url": prefix or "/"}


def _operations(rule: Rule, guard: Guard | None) -> Document:
    """A rule's part of a path item: its variables, and what each of its methods does."""
    methods = sorted((rule.methods or set()) - _GIVEN_METHODS)
    operations: Document = {method.lower(): _operation(rule, method, guard) for method in methods}
    if rule.arguments:
        text = {"type": "string", "minLength": 1}
        operations["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": text} for name in sorted(rule.arguments)
        ]
    return operations


def _operation(rule: Rule, method: str, guard: Guard | None) -> Document:
    name = rule.endpoint.rpartition(".")[2]
    responses: Document = {"200": {"description": "OK", "headers": _headers()}}
    for status in _by_status(_errors_of(rule, method, guard)):
        responses[str(status)] = {"$ref": f"#/components/responses/{status}"}
    for status_code, own in _OWN_ANSWERS.get(name, {}).items():
        responses[status_code] = {**responses.get(status_code, {}), **own}
    operation: Document = {"operationId": name, "responses": responses, "security": _SECURITY[guard]}
    if guard in ("key", "no key"):
        responses["default"] = {"description": "The upstream's own error.", "headers": _headers()}
    if method == "POST":
        media_type, schema = (
            ("multipart/form-data", "Form") if name in _WITH_A_FORM else ("application/json", "Request")
        )
        content = {media_type: {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _errors_of(rule: Rule, method: str, guard: Guard | None) -> Errors:
    """The errors that a route may answer with."""
    if guard is None:
        return [InternalError]
    if guard == "admin key":
        return _OF_AN_OPERATION
    never = set() if guard == "key" else {*_OF_A_KEY}
    if method != "POST":
        never |= _OF_A_BODY
        if not rule.arguments:
            never.add(ModelNotFound)  # it lists them
    return [kind for kind in _ALL_ERRORS if kind not in never]


def _leaves(kind: type[ProxyError]) -> Errors:
    below = kind.__subclasses__()
    return [leaf for child in below for leaf in _leaves(child)] if below else [kind]


_ALL_ERRORS = [kind for kind in _leaves(RequestError) + _leaves(ServiceError) if kind not in _OF_NO_ROUTE]
_SECURITY_SCHEMES: Document = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "api-key": {"type": "apiKey", "in": "header", "name": "api-key"},
}
_KEYS: list[Document] = [{scheme: []} for scheme in _SECURITY_SCHEMES]
_SECURITY: dict[Guard | None, list[Document]] = {None: [], "no key": [{}, *_KEYS], "key": _KEYS, "admin key": _KEYS}


def _by_status(kinds: Errors) -> dict[int, Errors]:
    return {status: [kind for kind in kinds if kind.status == status] for status in sorted({k.status for k in kinds})}


def _components() -> Document:
    member = {"type": ["string", "null"]}
    members = as_openai_error(ProxyError())["error"]
    error = {"type": "object", "required": list(members), "properties": dict.fromkeys(members, member)}
    return {
        "schemas": {
            "Request": _BODY,
            "Form": _FORM,
            "Error": {"type": "object", "required": ["error"], "properties": {"error": error}},
        },
        "responses": {str(status): _response(status, kinds) for status, kinds in _by_status(_ALL_ERRORS).items()},
        "headers": {
            "X-Request-Id": {"required": True, "schema": {"type": "string"}},
            **{name: {"schema": {"type": "string"}} for name in _FIELDS.values()},
        },
        "securitySchemes": _SECURITY_SCHEMES,
    }


def _response(status: int, kinds: Errors) -> Document:
    codes = dict.fromkeys(f"`{kind.code}`" for kind in kinds)
    return {
        "description": f"{HTTPStatus(status).phrase}: {', '.join(codes)}",
        "headers": _headers(_FIELDS.get(status)),
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }


def _headers(more: str | None = None) -> Document:
    names = ["X-Request-Id", more] if more else ["X-Request-Id"]
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}
