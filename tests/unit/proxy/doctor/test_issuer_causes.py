import json

import httpx
import pytest

from proxy.doctor.issuer_causes import no_json_cause, no_reply_cause, oauth_error, status_cause
from proxy.tokens.sources.endpoint import Reply
from proxy.tokens.sources.oauth_error import error_code


def reply(status: int, body: object = b"", **fields: str) -> Reply:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Reply(status, httpx.Headers({name.replace("_", "-"): value for name, value in fields.items()}), raw)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("token endpoint: no answer within the deadline", "too slow"),
        ("token endpoint: ConnectTimeout", "too slow"),
        ("token endpoint: ReadError: [SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert", "client_cert"),
        ("token endpoint: RemoteProtocolError", "does not speak HTTP"),
    ],
)
def test_no_reply(text: str, words: str) -> None:
    assert words in no_reply_cause(text)


def test_text_that_says_all_is_left_alone() -> None:
    assert no_reply_cause("token endpoint: reply of more than 1048576 bytes") == ""


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        pytest.param(302, b"", "redirects", id="redirect"),
        pytest.param(401, {"error": "invalid_client"}, "invalid_client, the issuer does not know", id="oauth-error"),
        pytest.param(400, {"error": "invalid_scope"}, "invalid_scope, the scope", id="scope"),
        pytest.param(401, {"error": "s3cret-mark"}, "refuses the credentials", id="unregistered-error"),
        pytest.param(401, b"s3cret-mark", "refuses the credentials", id="text"),
        pytest.param(403, b"", "refuses the credentials", id="forbidden"),
        pytest.param(404, b"", "the URL is wrong", id="not-found"),
        pytest.param(405, b"", "see method", id="method"),
        pytest.param(415, b"", "form instead of json", id="media-type"),
        pytest.param(429, b"", "too many requests", id="too-many"),
        pytest.param(418, b"", "does not take the request", id="another"),
        pytest.param(500, b"s3cret-mark", "failed", id="fault"),
        pytest.param(503, {"error": "temporarily_unavailable"}, "overloaded", id="overloaded"),
    ],
)
def test_status(status: int, body: object, words: str) -> None:
    cause = status_cause(reply(status, body))
    assert words in cause
    assert "s3cret-mark" not in cause


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "it is empty"),
        (b" \n", "it is empty"),
        (b"<!DOCTYPE html>", "HTML page"),
        (b"\n<HTML>", "HTML page"),
        (b"{'a': 1}", "see the URL"),
    ],
)
def test_no_json(body: bytes, words: str) -> None:
    assert words in no_json_cause(reply(200, body))


def test_packed_reply() -> None:
    assert "identity" in no_json_cause(reply(200, b"\x1f\x8b", Content_Encoding="gzip"))


@pytest.mark.parametrize(
    "code",
    [
        *("invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type"),
        *("invalid_scope", "invalid_target", "access_denied", "server_error", "temporarily_unavailable"),
        *("use_dpop_nonce", "invalid_dpop_proof", "invalid_authorization_details"),
    ],
)
def test_every_registered_code_comes_with_what_it_means(code: str) -> None:
    error = oauth_error(reply(400, {"error": code}))
    assert error_code(reply(400, {"error": code}).body) == code
    assert error is not None
    assert error.startswith(f"{code}, ")
    assert "RFC 6749" not in error  # that would be the text for codes without one
