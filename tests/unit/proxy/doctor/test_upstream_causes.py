import json
import ssl

import httpx2
import pytest

from proxy.doctor.foreign_text import ForeignText
from proxy.doctor.upstream_causes import error_codes, refusal_cause, transport_cause
from proxy.doctor.upstream_client import Answer
from proxy.upstreams.tunnel import TunnelError

_SENT_AS = "Authorization: Bearer ****"


def answer(status: int, body: object = b"", challenge: str = "") -> Answer:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = httpx2.Headers({"WWW-Authenticate": challenge} if challenge else {})
    return Answer(status, fields, begun_at=0.0, took_s=0.0, body=raw)


@pytest.mark.parametrize(
    ("status", "challenge", "words"),
    [
        pytest.param(401, 'Bearer error="invalid_token"', "invalid_token: it is for another audience", id="token"),
        pytest.param(401, 'Bearer realm="a", error=invalid_token', "invalid_token: ", id="unquoted"),
        pytest.param(403, 'Bearer error="insufficient_scope"', "insufficient_scope: the token is good", id="scope"),
        pytest.param(401, 'Bearer error="invalid_request"', "invalid_request: it cannot read", id="request"),
        pytest.param(401, 'Basic realm="a"', "it asks for Basic; see token_header", id="another-scheme"),
        pytest.param(401, "Bearer", "wrong header or prefix", id="no-code"),
        pytest.param(401, 's3cret-mark error="s3cret-mark"', "wrong header or prefix", id="unregistered"),
        pytest.param(401, "", "wrong header or prefix", id="no-challenge"),
        pytest.param(403, "", "the token may not do this", id="forbidden"),
    ],
)
def test_refused_token_is_told_by_how_it_was_sent(
    foreign: ForeignText, status: int, challenge: str, words: str
) -> None:
    cause = refusal_cause(answer(status, challenge=challenge), _SENT_AS, foreign)
    assert cause.startswith(f"the upstream refuses the token, sent as {_SENT_AS}: ")
    assert words in cause
    assert "s3cret-mark" not in cause


@pytest.mark.parametrize("status", [401, 403])
def test_token_that_was_not_sent_is_told(foreign: ForeignText, status: int) -> None:
    assert "none was sent: token_source is null" in refusal_cause(answer(status), None, foreign)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (302, "it redirects"),
        (400, "does not take it"),
        (404, "unknown model or path: see the names in models"),
        (429, "the token was taken"),
        (500, "failed"),
        (204, "without a body"),
    ],
)
def test_status(foreign: ForeignText, status: int, words: str) -> None:
    assert words in refusal_cause(answer(status), _SENT_AS, foreign)


def test_code_and_type_are_told_and_the_message_is_not(foreign: ForeignText) -> None:
    error = {"code": "model_not_found", "type": "invalid_request_error", "message": "s3cret-mark", "param": "s3cret"}
    cause = refusal_cause(answer(404, {"error": error}), _SENT_AS, foreign)
    assert cause.endswith(" (it says code model_not_found, type invalid_request_error)")
    assert "s3cret" not in cause


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"<html>", id="html"),
        pytest.param([], id="list"),
        pytest.param({"error": "text"}, id="text"),
        pytest.param({"error": {"code": 401, "type": None}}, id="no-texts"),
        pytest.param({"error": {"code": "No such model: s3cret-mark"}}, id="words"),
        pytest.param({"error": {"code": "s3cret-mark-token"}}, id="secret-sent-back"),
    ],
)
def test_all_else_is_not_told(foreign: ForeignText, body: object) -> None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    assert error_codes(raw, foreign) == {}


def caused(error: httpx2.TransportError, cause: OSError) -> httpx2.TransportError:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        pytest.param(httpx2.ReadTimeout("no answer in time"), "no answer in time: the upstream is too slow", id="late"),
        pytest.param(httpx2.ReadError("ConnectionResetError"), "broke off", id="reset"),
        pytest.param(httpx2.RemoteProtocolError("the answer breaks HTTP"), "the answer breaks HTTP: ", id="nonsense"),
        pytest.param(
            caused(httpx2.ReadError("SSLEOFError"), ssl.SSLEOFError(8, "EOF occurred")),
            "wants a client certificate",
            id="tls",
        ),
        pytest.param(TunnelError("the proxy answered 407", 407), "the HTTP proxy: the proxy answered 407", id="tunnel"),
        pytest.param(
            caused(httpx2.ConnectError("ConnectionRefusedError"), ConnectionRefusedError()), "refused", id="refused"
        ),
    ],
)
def test_broken_connection_is_told(error: httpx2.TransportError, words: str) -> None:
    assert words in transport_cause(error, "llm.example.com")
