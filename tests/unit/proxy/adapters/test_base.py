from typing import Any

import pytest

from proxy.adapters import Adapter, InvalidRequest, text_of
from proxy.errors import RouteNotFound


def test_adapter_without_a_method_serves_no_such_route() -> None:
    for request in (Adapter().chat_request, Adapter().embeddings_request):
        with pytest.raises(RouteNotFound):
            request({"model": "m"})


@pytest.mark.parametrize(
    ("status", "answer", "message", "kind", "code"),
    [
        pytest.param(400, {"message": "a", "code": 7}, "a", "invalid_request_error", "7", id="message and code"),
        pytest.param(404, {"detail": "Not Found"}, "Not Found", "invalid_request_error", None, id="FastAPI"),
        pytest.param(
            422,
            {"detail": [{"msg": "a"}, {"msg": "b", "input": "secret"}]},
            "a; b",
            "invalid_request_error",
            None,
            id="FastAPI, a body of another shape",
        ),
        pytest.param(429, {"error": {"message": "a", "code": "b"}}, "a", "rate_limit_error", "b", id="OpenAI"),
        pytest.param(500, {"error": "a"}, "a", "server_error", None, id="a text"),
        pytest.param(503, {}, "Upstream service unavailable, please retry.", "server_error", None, id="no object"),
        pytest.param(400, {"error_code": 1, "error_msg": "a"}, "a", "invalid_request_error", "1", id="error_msg"),
        pytest.param(
            400, {"message": ["a"]}, "The upstream answered with status 400.", "invalid_request_error", None, id="odd"
        ),
    ],
)
def test_error_is_openais_whatever_its_members_are_called(
    status: int, answer: dict[str, Any], message: str, kind: str, code: str | None
) -> None:
    assert Adapter().error(status, answer) == {"message": message, "type": kind, "param": None, "code": code}


@pytest.mark.parametrize(
    ("content", "text"),
    [(None, ""), ("a", "a"), ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "ab"), ([], "")],
    ids=["null", "text", "parts", "no parts"],
)
def test_text_of_a_message(content: Any, text: str) -> None:
    assert text_of(content) == text


def test_part_that_is_no_text_is_refused() -> None:
    with pytest.raises(InvalidRequest) as caught:
        text_of([{"type": "image_url", "image_url": {"url": "https://a.example"}}])
    assert (caught.value.status, caught.value.param) == (400, "messages")
