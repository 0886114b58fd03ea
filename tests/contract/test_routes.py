"""The routes that callers rely on, under every prefix; checked on the app's own map, without a server."""

from hashlib import sha256

import pytest
from flask import Flask
from werkzeug.exceptions import NotFound

from config import Settings
from proxy import create_app

POST_ROUTES = (
    "chat/completions",
    "embeddings",
    "completions",
    "responses",
    "rerank",
    "moderations",
    "images/generations",
    "audio/speech",
    "audio/transcriptions",
    "audio/translations",
)
GET_ROUTES = ("models", "models/gpt-4o", "models/org/name")
PREFIXES = tuple(prefix + version for prefix in ("/agent/api/llm_proxy", "") for version in ("", "/v1", "/v1/v1"))


@pytest.fixture(scope="module")
def app() -> Flask:
    upstream = {"name": "llm", "base_url": "http://127.0.0.1:9/v1"}
    return create_app(Settings.model_validate({"upstreams": [upstream]}))


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize(("method", "routes"), [("POST", POST_ROUTES), ("GET", GET_ROUTES)], ids=["POST", "GET"])
def test_a_route_is_found_under_a_prefix_with_and_without_a_last_slash(
    app: Flask, prefix: str, method: str, routes: tuple[str, ...]
) -> None:
    adapter = app.url_map.bind("proxy")
    for route in routes:
        endpoint, _ = adapter.match(f"{prefix}/{route}", method)
        assert endpoint
        if method == "POST":
            assert adapter.match(f"{prefix}/{route}/", method)[0] == endpoint


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/status", "/metrics"])
def test_operations_are_at_the_root_only(app: Flask, path: str) -> None:
    adapter = app.url_map.bind("proxy")
    assert adapter.match(path, "GET")
    with pytest.raises(NotFound):
        adapter.match("/agent/api/llm_proxy" + path, "GET")


def test_no_route_redirects(app: Flask) -> None:
    client = app.test_client()
    for path in ("/v1/models/", "//v1/models", "/v1//models", "/healthz/"):
        assert client.get(path).status_code not in range(300, 400)


def test_an_error_of_the_app_has_the_shape_of_openai_without_a_server_too(app: Flask) -> None:
    answer = app.test_client().post("/v1/chat/completions", data=b"{")
    assert answer.status_code == 400
    assert answer.get_json()["error"]["code"] == "invalid_json"


@pytest.mark.parametrize(
    ("key", "status"),
    [(None, 401), ("wrong", 401), ("plain", 401), ("admin", 200)],
    ids=["none", "wrong", "plain", "admin"],
)
@pytest.mark.parametrize("path", ["/", "/status", "/metrics"])
def test_operations_need_an_admin_key_on_an_open_address(path: str, key: str | None, status: int) -> None:
    keys = [
        {"label": name, "sha256": sha256(name.encode()).hexdigest(), "admin": name == "admin"}
        for name in ("plain", "admin")
    ]
    upstream = {"name": "llm", "base_url": "http://127.0.0.1:9/v1"}
    settings = {"upstreams": [upstream], "client_keys": keys, "server": {"bind": "0.0.0.0:5002"}}
    client = create_app(Settings.model_validate(settings)).test_client()
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    assert client.get(path, headers=headers).status_code == status
    assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize("path", ["/", "/status", "/metrics"])
def test_operations_are_open_on_loopback_but_not_under_a_name_that_a_page_may_have(app: Flask, path: str) -> None:
    client = app.test_client()
    assert client.get(path).status_code == 200
    answer = client.get(path, headers={"Host": "rebound.example.com:5002"})
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (404, "not_found")
    assert client.get("/healthz", headers={"Host": "rebound.example.com:5002"}).status_code == 200
