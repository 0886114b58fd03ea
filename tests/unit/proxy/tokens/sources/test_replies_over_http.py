"""The same replies over each source that asks over HTTP: which count, which are a failed fetch, and none is quoted."""

import json
import logging
from collections.abc import Callable

import pytest

from proxy.tokens.sources.base import Grant, Source, TokenFetchError
from proxy.tokens.sources.client_auth import client_secret_basic
from proxy.tokens.sources.client_credentials import ClientCredentialsSource
from proxy.tokens.sources.http_json import HttpJsonSource
from proxy.tokens.sources.oauth_client import OAuthClient
from proxy.tokens.sources.reply import TOKEN_MOST_CHARS, ReplyShape
from proxy.tokens.sources.token_exchange import GivenToken, TokenExchangeSource

_MARK = "s3cret-mark"


@pytest.fixture(params=["client_credentials", "token_exchange", "http_json"])
def source(request: pytest.FixtureRequest, issuer, make_endpoint) -> Source:
    endpoint = make_endpoint(issuer.url)
    if request.param == "http_json":
        return HttpJsonSource(endpoint, lambda: {"json": {"appSecret": _MARK}}, ReplyShape())
    client = OAuthClient(endpoint, client_secret_basic("app", lambda: _MARK), ReplyShape())
    if request.param == "client_credentials":
        return ClientCredentialsSource(client, dict)
    return TokenExchangeSource(client, GivenToken(lambda: _MARK, "urn:ietf:params:oauth:token-type:jwt"))


@pytest.fixture
def refusal(issuer, source, caplog) -> Callable[..., str]:
    """The reason why a reply is refused; neither it nor any log line may hold a secret or a part of the reply."""

    def refusal(body: object, **fields: str) -> str:
        caplog.set_level(logging.DEBUG)
        issuer.answer(body, **fields)
        with pytest.raises(TokenFetchError) as caught:
            source.fetch()
        assert _MARK not in str(caught.value) + repr(caught.value) + caplog.text
        assert (caught.value.refused, caught.value.connection) == (False, False)
        return str(caught.value)

    return refusal


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b" ", id="blank"),
        pytest.param(b"<!DOCTYPE html><title>s3cret-mark</title>", id="html"),
        pytest.param(b'{"access_token": "s3cret-mark", "expi', id="truncated"),
        pytest.param(b'{"access_token": "s3cret-mark"} trailing', id="bytes-after-the-end"),
        pytest.param(b'{"access_token": "s3cret-mark\xff"}', id="invalid-utf-8"),
        pytest.param('{"access_token": "s3cret-mark"}'.encode("utf-16"), id="utf-16"),
        pytest.param(b"[" * 100_000, id="nested-too-deep"),
        pytest.param(
            b'{"access_token": "s3cret-mark", "expires_in": ' + b"1" * 5000 + b"}", id="number-of-5000-digits"
        ),
        pytest.param(b"access_token=s3cret-mark&expires_in=300", id="form"),
    ],
)
def test_reply_that_is_not_json_is_a_failed_fetch(refusal, body: bytes) -> None:
    assert refusal(body) == "token endpoint: the reply is not JSON"


@pytest.mark.parametrize(
    "document",
    [
        pytest.param({"error": _MARK}, id="error-of-no-registered-code"),
        pytest.param({"error": {"code": "invalid_client"}}, id="error-of-another-form"),
        pytest.param({"token": _MARK}, id="missing"),
        pytest.param({"access_token": None}, id="null"),
        pytest.param({"access_token": ""}, id="empty-string"),
        pytest.param({"access_token": 5}, id="number"),
        pytest.param({"access_token": True}, id="bool"),
        pytest.param({"access_token": [_MARK]}, id="list"),
        pytest.param({"access_token": {"value": _MARK}}, id="object"),
        pytest.param([_MARK], id="root-is-a-list"),
        pytest.param(_MARK, id="root-is-a-string"),
        pytest.param(None, id="root-is-null"),
    ],
)
def test_reply_without_a_token_is_a_failed_fetch(refusal, document: object) -> None:
    assert refusal(document) == "no token at /access_token: a non-empty string is expected there"


@pytest.mark.parametrize("token", [{}, {"access_token": None}, {"access_token": ""}], ids=["absent", "null", "empty"])
@pytest.mark.parametrize(
    ("code", "refused"),
    [("invalid_client", True), ("access_denied", True), ("temporarily_unavailable", False), ("server_error", False)],
)
def test_error_that_came_with_200_is_told_by_its_registered_code(
    issuer, source, token: dict[str, object], code: str, refused: bool
) -> None:
    issuer.answer({"error": code, "error_description": _MARK, "token_type": "x", **token}, Retry_After="7")
    with pytest.raises(TokenFetchError) as caught:
        source.fetch()
    assert (str(caught.value), caught.value.refused) == (f"token endpoint: status 200, {code}", refused)
    assert caught.value.retry_after_s == 7


def test_token_beside_an_error_counts(issuer, source) -> None:
    issuer.answer({"error": "server_error", "access_token": "token-1"})
    assert source.fetch().access_token == "token-1"


def test_byte_order_mark_before_a_reply_is_skipped(issuer, source) -> None:
    issuer.answer(b'\xef\xbb\xbf{"access_token": "token-1"}')
    assert source.fetch().access_token == "token-1"
    issuer.answer(b'\xef\xbb\xbf{"error": "invalid_client"}')
    with pytest.raises(TokenFetchError, match="status 200, invalid_client"):
        source.fetch()


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(f"{_MARK}\r", id="cr"),
        pytest.param(f"{_MARK}\n", id="lf-at-the-end"),
        pytest.param(f"{_MARK}\r\nX-Injected: 1", id="crlf"),
        pytest.param(f"{_MARK}\0", id="nul"),
        pytest.param(f"{_MARK}é", id="non-ascii"),
        pytest.param(f"{_MARK}\N{FULLWIDTH DIGIT ONE}", id="digit-beyond-ascii"),
        pytest.param(f"{_MARK} x", id="space"),
        pytest.param(f" {_MARK}", id="space-before"),
        pytest.param(f"{_MARK},x", id="comma"),
        pytest.param(f'{_MARK}"', id="quote"),
        pytest.param(f"{_MARK}=x", id="equals-sign-inside"),
        pytest.param("===", id="equals-signs-alone"),
    ],
)
def test_token_with_characters_that_no_header_may_hold_is_a_failed_fetch(refusal, value: str) -> None:
    reason = refusal({"access_token": value})
    assert reason == "the token at /access_token has characters that RFC 6750 does not allow"


@pytest.mark.parametrize("value", ["t", "AZaz09-._~+/", "YWJj==", "e30.e30.c2ln"])
def test_token_of_rfc_6750_characters_is_taken_as_it_is(issuer, source, value: str) -> None:
    issuer.answer({"access_token": value, "expires_in": 300})
    assert source.fetch() == Grant(value, 300.0)


@pytest.mark.parametrize(
    ("length", "fits"),
    [
        pytest.param(TOKEN_MOST_CHARS - 1, True, id="just-below"),
        pytest.param(TOKEN_MOST_CHARS, True, id="at-the-limit"),
        pytest.param(TOKEN_MOST_CHARS + 1, False, id="just-above"),
    ],
)
def test_token_of_up_to_16_kib_is_taken(issuer, source, refusal, length: int, fits: bool) -> None:
    issuer.answer({"access_token": "x" * length})
    if fits:
        assert len(source.fetch().access_token) == length
    else:
        reason = refusal({"access_token": "x" * length})
        assert reason == f"the token at /access_token is longer than {TOKEN_MOST_CHARS} characters"


@pytest.mark.parametrize("token_type", ["mac", "", "Bearer ", "N_A", 1, True, ["Bearer"], {"type": "Bearer"}])
def test_token_type_other_than_bearer_is_a_failed_fetch(refusal, token_type: object) -> None:
    reason = refusal({"access_token": _MARK, "token_type": token_type})
    assert reason == "token endpoint: token_type is not Bearer"


@pytest.mark.parametrize("members", [{}, *({"token_type": name} for name in ("Bearer", "bearer", "BEARER", None))])
def test_token_type_is_bearer_in_any_case_or_absent(issuer, source, members: dict[str, object]) -> None:
    issuer.answer({"access_token": "token-1", **members})
    assert source.fetch().access_token == "token-1"


@pytest.mark.parametrize(
    ("expires_in", "lifetime_s"),
    [
        pytest.param("300", 300.0, id="number"),
        pytest.param('"300"', 300.0, id="digit-string"),
        pytest.param('"299.5"', 299.5, id="decimal-string"),
        pytest.param("299.5", 299.5, id="decimal"),
        pytest.param("3e2", 300.0, id="exponent"),
        pytest.param("1", 1.0, id="one-second"),
        pytest.param("0.001", 0.001, id="just-above-zero"),
        pytest.param("2592000", 2_592_000.0, id="thirty-days"),
        pytest.param("null", 300.0, id="null-counts-as-absent"),
    ],
)
def test_lifetime_that_is_finite_and_above_zero_is_taken(issuer, source, expires_in: str, lifetime_s: float) -> None:
    issuer.answer(f'{{"access_token": "token-1", "expires_in": {expires_in}}}'.encode())
    assert source.fetch().lifetime_s == lifetime_s


def test_lifetime_that_is_absent_is_the_default(issuer, source) -> None:
    issuer.answer({"access_token": "token-1"})
    assert source.fetch().lifetime_s == 300.0


@pytest.mark.parametrize(
    "expires_in",
    [
        pytest.param("0", id="0"),
        pytest.param("-1", id="-1"),
        pytest.param("-0.0", id="minus-zero"),
        pytest.param('"0"', id="0-as-string"),
        pytest.param('"0.0"', id="0.0-as-string"),
        pytest.param("NaN", id="NaN"),
        pytest.param("Infinity", id="Infinity"),
        pytest.param("-Infinity", id="minus-Infinity"),
        pytest.param("1e309", id="1e309"),
        pytest.param("1" + "0" * 400, id="whole-number-of-401-digits"),
        pytest.param("-1" + "0" * 400, id="negative-whole-number-of-401-digits"),
    ],
)
def test_lifetime_that_is_not_finite_and_above_zero_is_a_failed_fetch(refusal, expires_in: str) -> None:
    reason = refusal(f'{{"access_token": "s3cret-mark", "expires_in": {expires_in}}}'.encode())
    assert reason == "the lifetime by /expires_in is not above 0 and finite"


@pytest.mark.parametrize(
    "expires_in",
    [True, False, "", "s3cret-mark", "-1", "+5", "1e3", "0x10", "NaN", " 300", "5 minutes", "٣٠٠", [300], {"s": 300}],
)
def test_lifetime_that_is_no_number_is_a_failed_fetch(refusal, expires_in: object) -> None:
    reason = refusal({"access_token": _MARK, "expires_in": expires_in})
    assert reason == "the lifetime at /expires_in is not a number"


def test_reply_that_is_packed_though_identity_was_asked_is_a_failed_fetch(refusal) -> None:
    assert refusal(b"\x1f\x8b" + b"\0" * 50, Content_Encoding="gzip") == "token endpoint: the reply is not JSON"


def test_content_type_of_the_reply_does_not_matter(issuer, source) -> None:
    issuer.answer(json.dumps({"access_token": "token-1"}).encode(), Content_Type="text/html; charset=latin-1")
    assert source.fetch().access_token == "token-1"


def test_token_is_found_among_other_members_of_any_kind(issuer, source) -> None:
    issuer.answer({"scope": "a b", "refresh_token": "x", "deep": {"list": [1, None]}, "access_token": "token-1"})
    assert source.fetch().access_token == "token-1"


def test_closed_source_fails_without_a_call(issuer, source) -> None:
    source.close()
    with pytest.raises(TokenFetchError):
        source.fetch()
    assert issuer.connections == 0
