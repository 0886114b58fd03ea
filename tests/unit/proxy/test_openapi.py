import json
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from config import Settings
from proxy import create_app
from proxy.body import read_body
from proxy.errors import ProxyError, RequestError, ServiceError, as_openai_error

OPERATIONS = {"/", "/healthz", "/readyz", "/metrics", "/status", "/openapi.json"}


def app_of(*prefixes: str, bind: str = "127.0.0.1:5002", has_keys: bool = True) -> Flask:
    upstream = {
        "name": "marked-upstream",
        "base_url": "http://marked.example.com/v1",
        "models": {"marked-model": "x"},
        "headers": {"marked-field": "x"},
        "token_source": "marked-source",
    }
    source = {"type": "static", "token": "marked-token"}
    server = {"bind": bind, **({"url_prefixes": prefixes} if prefixes else {})}
    keys = [{"label": "marked-label", "sha256": sha256(b"marked-key").hexdigest()}] if has_keys else []
    sections = {"upstreams": [upstream], "token_sources": {"marked-source": source}, "client_keys": keys}
    return create_app(Settings.model_validate({"server": server, **sections}))


def document_of(app: Flask) -> dict[str, Any]:
    answer = app.test_client().get("/openapi.json")
    assert (answer.status_code, answer.mimetype) == (200, "application/json")
    return dict(answer.get_json())


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return document_of(app_of())


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method in item.keys() & {"get", "put", "post", "delete", "patch", "head", "options", "trace"}:
            yield path, method.upper(), item[method]


def told(document: dict[str, Any]) -> set[tuple[str, str]]:
    """(path, method) of each operation below each of its servers, as a client puts them together."""
    return {
        (server["url"].rstrip("/") + path, method)
        for path, method, _ in operations(document)
        for server in document["paths"][path].get("servers", document["servers"])
    }


def found(app: Flask) -> set[tuple[str, str]]:
    """(path, method) of each route, without the methods that Flask gives to all."""
    return {
        (rule.rule.replace("<path:model>", "{model}"), method)
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }


@pytest.mark.parametrize(
    "prefixes",
    [(), ("",), ("/p",), ("/agent/api", "", "/v2.1/a"), ("", "/v2"), ("/healthz", "")],
    ids=repr,
)
def test_every_route_is_told_and_every_route_that_is_told_is_there(prefixes: tuple[str, ...]) -> None:
    app = app_of(*prefixes)
    document = document_of(app)
    assert told(document) == found(app)
    validate(document)


def test_api_is_below_each_prefix_and_the_operations_are_at_the_root(document: dict[str, Any]) -> None:
    urls = [server["url"] for server in document["servers"]]
    assert urls == [before + v or "/" for before in ("/agent/api/llm_proxy", "") for v in ("", "/v1", "/v1/v1")]
    at_the_root = {path for path, item in document["paths"].items() if item.get("servers") == [{"url": "/"}]}
    assert at_the_root == OPERATIONS
    assert all("servers" not in document["paths"][path] for path in document["paths"].keys() - OPERATIONS)


def test_names_of_operations_are_the_routes_own(document: dict[str, Any]) -> None:
    names = {f"{method} {path}": operation["operationId"] for path, method, operation in operations(document)}
    assert names["POST /chat/completions"] == "create_chat_completion"
    assert names["GET /models/{model}"] == "retrieve_model"
    assert len(set(names.values())) == len(names)


# Answers


def leaves(kind: type[ProxyError]) -> list[type[ProxyError]]:
    below = kind.__subclasses__()
    return [leaf for child in below for leaf in leaves(child)] if below else [kind]


def test_every_status_of_the_contract_is_among_the_answers_of_a_completion(document: dict[str, Any]) -> None:
    answers = document["paths"]["/chat/completions"]["post"]["responses"]
    assert {"200", "400", "401", "403", "404", "413", "429", "502", "503", "504"} <= answers.keys()


@pytest.mark.parametrize("kind", leaves(RequestError) + leaves(ServiceError), ids=lambda kind: kind.__name__)
def test_error_is_told_with_its_code_where_a_route_may_answer_with_it(
    document: dict[str, Any], kind: type[ProxyError]
) -> None:
    answer = document["components"]["responses"].get(str(kind.status), {"description": ""})
    assert (f"`{kind.code}`" in answer["description"]) == (kind.code not in ("not_found", "method_not_allowed"))


@pytest.mark.parametrize("kind", leaves(RequestError) + leaves(ServiceError), ids=lambda kind: kind.__name__)
def test_error_is_of_the_shape_that_is_told(document: dict[str, Any], kind: type[ProxyError]) -> None:
    schema = Draft202012Validator(document["components"]["schemas"]["Error"])
    assert schema.is_valid(as_openai_error(kind("text", param="model")))
    assert schema.is_valid(as_openai_error(kind()))
    assert not schema.is_valid({"error": "text"})
    assert not schema.is_valid({"message": "text"})


def test_fields_that_come_with_an_error_are_told(document: dict[str, Any]) -> None:
    answers = document["components"]["responses"]
    more = {status: set(answer["headers"]) - {"X-Request-Id"} for status, answer in answers.items()}
    assert {status: names for status, names in more.items() if names} == {
        "401": {"WWW-Authenticate"},
        "429": {"Retry-After"},
        "503": {"Retry-After"},
    }
    assert all("X-Request-Id" in answer["headers"] for answer in answers.values())


def test_errors_of_a_body_are_not_told_of_a_route_without_one(document: dict[str, Any]) -> None:
    listing = document["paths"]["/models"]["get"]
    assert not {"403", "408", "413"} & listing["responses"].keys()
    assert "requestBody" not in listing


def test_unknown_model_is_told_where_one_is_named(document: dict[str, Any]) -> None:
    named = {path for path, _, operation in operations(document) if "404" in operation["responses"]}
    assert named == document["paths"].keys() - OPERATIONS - {"/models"}


def test_status_page_is_told_as_html(document: dict[str, Any]) -> None:
    answer = document["paths"]["/"]["get"]["responses"]["200"]
    assert (answer["content"].keys(), answer["headers"].keys()) == ({"text/html"}, {"X-Request-Id"})


@pytest.mark.parametrize("path", ["/", "/status", "/metrics"])
def test_operation_that_wants_an_admin_key_answers_as_told_and_never_with_an_upstreams_error(path: str) -> None:
    app = app_of(bind="0.0.0.0:5002")
    responses = document_of(app)["paths"][path]["get"]["responses"]
    assert responses.keys() == {"200", "400", "401", "500"}
    client = app.test_client()
    assert client.get(path).status_code == 401
    assert client.get(path, headers={"Authorization": "Bearer a,b"}).status_code == 400


def test_errors_of_a_key_are_not_told_where_there_are_no_keys() -> None:
    responses = document_of(app_of(has_keys=False))["paths"]["/chat/completions"]["post"]["responses"]
    assert not {"401", "403", "429"} & responses.keys()
    assert {"200", "400", "404", "413", "502", "503", "504", "default"} <= responses.keys()


# Requests


def test_body_is_told_of_every_post(document: dict[str, Any]) -> None:
    for _, method, operation in operations(document):
        assert ("requestBody" in operation) == (method == "POST")


_VALUES = st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2)
_BODIES = st.fixed_dictionaries({}, optional={"model": _VALUES, "stream": _VALUES, "input": _VALUES}) | _VALUES


@given(_BODIES)
def test_body_is_good_by_what_is_told_where_the_proxy_takes_it(document: dict[str, Any], body: Any) -> None:
    try:
        read_body(json.dumps(body, ensure_ascii=False).encode())
    except RequestError:
        is_taken = False
    else:
        is_taken = True
    assert Draft202012Validator(document["components"]["schemas"]["Request"]).is_valid(body) == is_taken


# Keys


@pytest.mark.parametrize(("bind", "is_open"), [("127.0.0.1:5002", True), ("0.0.0.0:5002", False)])
def test_key_is_told_of_the_routes_that_want_one(bind: str, is_open: bool) -> None:
    without = {path for path, _, operation in operations(document_of(app_of(bind=bind))) if not operation["security"]}
    assert without == OPERATIONS - (set() if is_open else {"/", "/metrics", "/status"})


def test_key_may_be_left_out_where_the_config_has_none() -> None:
    document = document_of(app_of(has_keys=False))
    asked = {path: operation["security"] for path, _, operation in operations(document) if operation["security"]}
    assert asked.keys() == document["paths"].keys() - OPERATIONS
    assert all(security == [{}, {"bearer": []}, {"api-key": []}] for security in asked.values())
    validate(document)


def test_what_else_runs_before_a_view_plays_no_part() -> None:
    app = app_of()
    before = document_of(app)
    other = app_of()
    other.before_request_funcs["health"] = [lambda: None]
    assert document_of(other) == before


def test_document_needs_no_key_and_tells_nothing_of_the_config_but_the_prefixes() -> None:
    text = json.dumps(document_of(app_of("/p", bind="0.0.0.0:5002")))
    assert "/p/v1" in text
    assert "marked" not in text
