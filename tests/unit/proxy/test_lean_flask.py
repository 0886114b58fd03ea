from collections.abc import Iterator
from inspect import iscoroutinefunction
from typing import Any

import flask
import pytest
from flask import Flask, jsonify, request, session

from config import Settings
from proxy import create_app
from proxy.lean_flask import Finishing, LeanFlask, LeanResponse


@pytest.fixture
def app() -> LeanFlask:
    app = LeanFlask("test")
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False

    @app.get("/items/<path:name>")
    def item(name: str) -> Any:
        return jsonify({"name": name, "host": request.host})

    @app.post("/plain")
    def plain() -> Any:
        return jsonify({"rule": str(request.url_rule), "args": request.view_args})

    return app


# Responses


@pytest.mark.parametrize("body", [b"", b"ok", "zë", b"x" * 100_000], ids=["empty", "bytes", "text", "long"])
def test_length_is_that_of_the_body(app: LeanFlask, body: bytes | str) -> None:
    app.add_url_rule("/", view_func=lambda: LeanResponse(body, headers=[("Content-Type", "a/b")]))
    answer = app.test_client().get("/")
    raw = body.encode() if isinstance(body, str) else body
    assert answer.data == raw
    assert list(answer.headers) == [("Content-Type", "a/b"), ("Content-Length", str(len(raw)))]


def test_stream_has_no_length(app: LeanFlask) -> None:
    def view() -> LeanResponse:
        return LeanResponse(iter([b"a", b"b"]), headers=[("Content-Type", "text/event-stream")])

    app.add_url_rule("/", view_func=view)
    answer = app.test_client().get("/")
    assert list(answer.headers) == [("Content-Type", "text/event-stream")]
    assert answer.data == b"ab"


def test_headers_leave_as_they_were_set(app: LeanFlask) -> None:
    fields = [("X-B", "1"), ("x-a", "2"), ("X-B", "3"), ("Content-Type", "x"), ("Location", "/else?a=ü")]
    app.add_url_rule("/", view_func=lambda: LeanResponse(iter([b"x"]), status=299, headers=fields))
    answer = app.test_client().get("/")
    assert list(answer.headers) == fields
    assert answer.status_code == 299


def test_json_of_a_view_has_its_length(app: LeanFlask) -> None:
    answer = app.test_client().get("/items/a")
    assert answer.headers["Content-Length"] == str(len(answer.data))
    assert answer.get_json()["name"] == "a"


@pytest.mark.parametrize("status", [204, 304])
def test_status_without_a_body_has_none_and_no_length(app: LeanFlask, status: int) -> None:
    app.add_url_rule("/", view_func=lambda: LeanResponse(status=status))
    answer = app.test_client().get("/")
    assert answer.data == b""
    assert "Content-Length" not in answer.headers


def test_answer_to_head_has_the_length_and_no_body(app: LeanFlask) -> None:
    client = app.test_client()
    whole, head = client.get("/items/a"), client.head("/items/a")
    assert head.data == b""
    assert head.headers == whole.headers


# Routes


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/items/a", "a"),
        ("/items/a/b", "a/b"),
        ("/items/a%20b", "a b"),
        ("/items/%E6%97%A5", "日"),
        ("/items/%FF", "�"),
    ],
)
def test_path_is_found_and_taken_apart(app: LeanFlask, path: str, name: str) -> None:
    assert app.test_client().get(path).get_json()["name"] == name


@pytest.mark.parametrize("path", ["/item/a", "/Items/a", "/items", "/items/", "/"])
def test_other_path_is_not_found(app: LeanFlask, path: str) -> None:
    assert app.test_client().get(path).status_code == 404


def test_wrong_method_tells_the_right_ones(app: LeanFlask) -> None:
    client = app.test_client()
    answer = client.post("/items/a")
    assert answer.status_code == 405
    assert set(answer.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}
    options = client.options("/items/a")
    assert options.headers["Allow"] == answer.headers["Allow"]
    assert (options.data, options.headers["Content-Length"]) == (b"", "0")


def test_path_without_variables_is_found_each_time(app: LeanFlask) -> None:
    client = app.test_client()
    for path in ("/plain", "/plain", "/plain/", "/plain"):
        assert client.post(path).get_json() == {"rule": "/plain", "args": {}}
    for path in ("//plain", "/plain//", "/Plain"):
        assert client.post(path).status_code == 404
    for _ in range(2):
        answer = client.get("/plain")
        assert (answer.status_code, set(answer.headers["Allow"].split(", "))) == (405, {"POST", "OPTIONS"})
        assert set(client.options("/plain").headers["Allow"].split(", ")) == {"POST", "OPTIONS"}


def test_path_that_spells_a_variable_is_one_of_its_values(app: LeanFlask) -> None:
    for _ in range(2):
        assert app.test_client().get("/items/<path:name>").get_json()["name"] == "<path:name>"


def test_first_of_two_routes_with_one_path_wins() -> None:
    app, plain = LeanFlask("test"), Flask("test")
    for one in (app, plain):
        one.add_url_rule("/a", "first", lambda: "first")
        one.add_url_rule("/a", "second", lambda: "second")
    assert app.test_client().get("/a").data == plain.test_client().get("/a").data == b"first"


@pytest.mark.parametrize("host", ["proxy", "other.example:8080", "[::1]:5002", "a..b"])
def test_host_plays_no_part(app: LeanFlask, host: str) -> None:
    assert app.test_client().get("/items/a", headers={"Host": host}).status_code == 200


def test_session_is_empty_and_sets_no_cookie(app: LeanFlask) -> None:
    app.add_url_rule("/", view_func=lambda: jsonify(dict(session)))
    answer = app.test_client().get("/", headers={"Cookie": "session=x"})
    assert answer.get_json() == {}
    assert "Set-Cookie" not in answer.headers
    assert "Vary" not in answer.headers


@pytest.fixture(scope="module")
def proxy() -> Flask:
    upstream = {"name": "llm", "base_url": "http://127.0.0.1:9/v1"}
    return create_app(Settings.model_validate({"upstreams": [upstream]}))


def test_nothing_of_the_app_waits_for_what_is_left_out(proxy: Flask) -> None:
    assert list(proxy.after_request_funcs) == [None]
    assert not proxy.url_value_preprocessors
    assert not proxy.teardown_request_funcs
    assert not proxy.teardown_appcontext_funcs
    left_out = ("request_started", "request_finished", "request_tearing_down", "appcontext_tearing_down")
    assert [name for name in left_out if getattr(flask, name).receivers] == []


def test_no_function_of_the_app_is_async(proxy: Flask) -> None:
    # It would never be awaited.
    handlers = [handler for codes in proxy.error_handler_spec[None].values() for handler in codes.values()]
    hooks = [hook for by_name in (proxy.before_request_funcs, proxy.after_request_funcs) for hook in by_name.values()]
    functions = [*proxy.view_functions.values(), *handlers, *(function for hook in hooks for function in hook)]
    assert len(functions) > 20
    assert not any(map(iscoroutinefunction, functions))


# Bodies that tell their end


def test_body_is_passed_on_as_it_comes_and_its_end_is_left_to_close() -> None:
    ended: list[str] = []

    def body() -> Iterator[bytes]:
        yield b"a"
        yield b"b"

    finishing = Finishing(body(), lambda: ended.append("end"))
    assert list(finishing) == [b"a", b"b"]
    assert ended == []
    finishing.close()
    assert ended == ["end"]
