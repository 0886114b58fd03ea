"""What an error does to the connection that it is answered on."""

import pytest
from flask import Flask

from proxy.error_answers import LastResponse, answer_error
from proxy.errors import (
    BodyTimeout,
    BodyTooLarge,
    InvalidChunks,
    InvalidJson,
    ProxyError,
    UpstreamAnswer,
    UpstreamTimeout,
)
from proxy.lean_flask import LeanFlask
from proxy.observability.request_log import RequestLog
from proxy.request_state import RequestState, begin


class FakeServerResponse:
    """Where gunicorn keeps what becomes of a connection."""

    def __init__(self) -> None:
        self.closes = False
        self.closes_by_its_head: bool | None = None

    def start_response(self, status: str, headers: object) -> None:
        self.closes_by_its_head = self.closes

    def force_close(self) -> None:
        self.closes = True


def upstream_answer(body: bytes = b"", *, is_last: bool = True) -> UpstreamAnswer:
    """One that came before all of the caller's body was read, or behind it."""
    error = UpstreamAnswer(413, [("Content-Type", "application/json")], body)
    error.ends_connection = is_last
    return error


@pytest.fixture
def app() -> Flask:
    app = LeanFlask("test")
    begin(RequestState({}, RequestLog("id-1", "POST", "/")))
    return app


@pytest.mark.parametrize(
    ("error", "is_last"),
    [
        (BodyTimeout(), True),
        (BodyTooLarge("The request body is longer than 3 bytes."), True),
        (InvalidChunks(), True),
        (InvalidJson("x"), False),
        (UpstreamTimeout(), False),
        (upstream_answer(b'{"error": 1}'), True),
        (upstream_answer(), True),
        (upstream_answer(b'{"error": 1}', is_last=False), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_error_behind_which_no_request_can_begin_alone_ends_the_connection(
    app: Flask, error: ProxyError, is_last: bool
) -> None:
    server = FakeServerResponse()
    with app.app_context():
        response = answer_error(error)
    body = b"".join(response({"REQUEST_METHOD": "POST"}, server.start_response))  # type: ignore[arg-type]
    assert server.closes_by_its_head is is_last
    assert (response.status_code, response.content_length, response.mimetype) == (
        error.status,
        len(body),
        "application/json",
    )


def test_last_response_is_like_any_other_without_gunicorn(app: Flask) -> None:
    app.add_url_rule("/", view_func=lambda: LastResponse(b"ok", 413))
    assert app.test_client().get("/").data == b"ok"
