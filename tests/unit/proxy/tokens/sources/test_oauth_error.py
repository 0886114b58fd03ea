import json

import pytest

from proxy.tokens.sources.base import TokenFetchError
from proxy.tokens.sources.oauth_error import error_code


@pytest.mark.parametrize(
    "code",
    [
        "invalid_request",
        "invalid_client",
        "invalid_grant",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
        "invalid_target",
        "access_denied",
        "server_error",
        "temporarily_unavailable",
        "use_dpop_nonce",
    ],
)
def test_registered_code_is_found(code: str) -> None:
    assert error_code(json.dumps({"error_description": "x", "error": code}).encode()) == code


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"invalid_client", id="bare"),
        pytest.param(b'"invalid_client"', id="string"),
        pytest.param(b'["error", "invalid_client"]', id="list"),
        pytest.param(b"{}", id="no-member"),
        pytest.param(b'{"error": null}', id="null"),
        pytest.param(b'{"error": 5}', id="number"),
        pytest.param(b'{"error": ["invalid_client"]}', id="list-inside"),
        pytest.param(b'{"error": {"code": "invalid_client"}}', id="object-inside"),
        pytest.param(b'{"error": "s3cret"}', id="free-text"),
        pytest.param(b'{"error": "invalid_client s3cret"}', id="more-than-the-code"),
        pytest.param(b'{"error": "INVALID_CLIENT"}', id="another-case"),
        pytest.param(b'{"error_description": "invalid_client"}', id="description"),
        pytest.param(b'{"error": "invalid_client"', id="cut-off"),
        pytest.param(b"\xff", id="no-utf-8"),
        pytest.param(b'{"a":' * 100_000, id="deep"),
    ],
)
def test_all_else_is_no_code(body: bytes) -> None:
    assert error_code(body) is None


@pytest.mark.parametrize(
    ("status", "code", "refused"),
    [
        (400, "invalid_grant", True),
        (401, "invalid_client", True),
        (403, "access_denied", True),
        (400, "temporarily_unavailable", False),
        (401, "server_error", False),
        (503, "temporarily_unavailable", False),
        (500, "invalid_client", False),
    ],
)
def test_code_is_told_and_a_passing_one_is_no_refusal(
    issuer, make_endpoint, status: int, code: str, refused: bool
) -> None:
    issuer.answer({"error": code}, status)
    with pytest.raises(TokenFetchError) as caught:
        make_endpoint(issuer.url).ask()
    assert (str(caught.value), caught.value.refused) == (f"token endpoint: status {status}, {code}", refused)


def test_unregistered_code_is_not_told(issuer, make_endpoint, mark: str) -> None:
    issuer.answer({"error": mark}, 400)
    with pytest.raises(TokenFetchError) as caught:
        make_endpoint(issuer.url).ask()
    assert str(caught.value) == "token endpoint: status 400"
