import json
import re

import pytest

from proxy import errors
from proxy.errors import ProxyError, RequestError, ServiceError, UpstreamAnswer, as_openai_error


def subclasses(kind: type[ProxyError]) -> list[type[ProxyError]]:
    return [kind, *(below for child in kind.__subclasses__() for below in subclasses(child))]


_OURS = [kind for kind in subclasses(ProxyError) if kind is not UpstreamAnswer]
_SERVICE = subclasses(ServiceError)


@pytest.mark.parametrize(
    ("name", "status", "type_", "code"),
    [
        ("InvalidJson", 400, "invalid_request_error", "invalid_json"),
        ("InvalidRequest", 400, "invalid_request_error", "invalid_request"),
        ("InvalidChunks", 400, "invalid_request_error", "invalid_request"),
        ("InvalidClientKey", 401, "authentication_error", "invalid_api_key"),
        ("ModelNotAllowed", 403, "permission_error", "model_not_allowed"),
        ("ModelNotFound", 404, "invalid_request_error", "model_not_found"),
        ("RouteNotFound", 404, "invalid_request_error", "not_found"),
        ("MethodNotAllowed", 405, "invalid_request_error", "method_not_allowed"),
        ("BodyTimeout", 408, "invalid_request_error", "body_timeout"),
        ("BodyTooLarge", 413, "invalid_request_error", "body_too_large"),
        ("RateLimitExceeded", 429, "rate_limit_error", "rate_limit_exceeded"),
        ("InternalError", 500, "server_error", "internal_error"),
        ("UpstreamUnavailable", 502, "server_error", "upstream_unavailable"),
        ("Overloaded", 503, "server_error", "overloaded"),
        ("TokenUnavailable", 503, "server_error", "upstream_unavailable"),
        ("UpstreamTimeout", 504, "server_error", "upstream_timeout"),
        ("CallerGone", 499, "server_error", "caller_gone"),
    ],
)
def test_error_has_its_status_type_and_code(name: str, status: int, type_: str, code: str) -> None:
    error = getattr(errors, name)()
    assert (error.status, error.type, error.code) == (status, type_, code)


def test_only_what_leaves_a_body_unread_ends_the_connection() -> None:
    ending = {kind.__name__ for kind in _OURS if kind.ends_connection}
    assert ending == {"InvalidChunks", "BodyTimeout", "BodyTooLarge"}


def test_request_errors_are_4xx_and_service_errors_5xx() -> None:
    assert all(400 <= kind.status < 500 for kind in subclasses(RequestError))
    assert all(500 <= kind.status < 600 for kind in _SERVICE)


@pytest.mark.parametrize("kind", _SERVICE, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("word", ["auth", "key", "token", "invalid", "format", "quota", "credit", "capacity"])
def test_answer_of_a_service_error_has_none_of_the_words_that_ragflow_gives_up_on(
    kind: type[ProxyError], word: str
) -> None:
    assert word not in json.dumps(as_openai_error(kind(cause="the token was refused"))).lower()


@pytest.mark.parametrize("kind", _SERVICE, ids=lambda kind: kind.__name__)
def test_answer_of_a_service_error_has_no_digits_that_look_like_a_status(kind: type[ProxyError]) -> None:
    error = kind(cause="the upstream answered 401", retry_after_s=429)
    assert not re.search(r"\d{3}", json.dumps(as_openai_error(error)))


@pytest.mark.parametrize("kind", _SERVICE, ids=lambda kind: kind.__name__)
def test_text_of_a_service_error_asks_for_a_retry(kind: type[ProxyError]) -> None:
    message = kind().message
    assert message.endswith("please retry.")
    assert "unavailable" in message or "server" in message


@pytest.mark.parametrize("kind", _OURS, ids=lambda kind: kind.__name__)
def test_cause_is_for_the_log_only(kind: type[ProxyError]) -> None:
    error = kind(cause="s3cret-mark")
    assert error.cause == "s3cret-mark"
    assert "s3cret-mark" not in json.dumps(as_openai_error(error)) + str(error)


def test_openai_error_has_the_members_that_the_sdks_read() -> None:
    error = errors.InvalidRequest("The member 'a' is wrong.", param="a")
    assert as_openai_error(error) == {
        "error": {
            "message": "The member 'a' is wrong.",
            "type": "invalid_request_error",
            "param": "a",
            "code": "invalid_request",
        }
    }


def test_param_is_null_where_nothing_is_named() -> None:
    assert as_openai_error(errors.UpstreamTimeout())["error"]["param"] is None


def test_message_of_an_error_is_its_text_too() -> None:
    assert str(errors.ModelNotFound("No upstream serves this model.")) == "No upstream serves this model."
    assert str(errors.InvalidClientKey()) == errors.InvalidClientKey.message


def test_upstreams_answer_keeps_its_status_fields_and_body() -> None:
    error = UpstreamAnswer(418, [("A", "b")], b"body")
    assert (error.status, error.fields, error.body, error.code) == (418, [("A", "b")], b"body", "upstream_error")


def test_tree_at_the_head_of_the_file_names_every_error_with_its_status() -> None:
    drawn = dict(re.findall(r"[├└]── (\w+) +(\d{3})?", errors.__doc__ or ""))
    leaves = {kind.__name__: str(kind.status) for kind in _OURS if not kind.__subclasses__() and kind.status != 499}
    assert {name: status for name, status in drawn.items() if status} == leaves
    assert set(drawn) | {"ProxyError"} == {kind.__name__ for kind in subclasses(ProxyError)}
