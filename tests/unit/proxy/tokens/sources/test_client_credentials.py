import base64
from collections.abc import Callable, Iterator

import pytest

from proxy.tokens.sources.base import Grant, TokenFetchError
from proxy.tokens.sources.client_credentials import ClientCredentialsSource


@pytest.fixture
def make_source(issuer, make_endpoint) -> Callable[..., ClientCredentialsSource]:
    def make_source(
        secret: str | Iterator[str] = "secret", client_id: str = "app", **options
    ) -> ClientCredentialsSource:
        read_secret = (lambda: secret) if isinstance(secret, str) else (lambda: next(secret))
        return ClientCredentialsSource(
            make_endpoint(issuer.url), client_id=client_id, read_secret=read_secret, **options
        )

    return make_source


def test_grant_is_asked_for_as_rfc_6749_has_it(issuer, make_source) -> None:
    issuer.answer({"access_token": "token-1", "token_type": "Bearer", "expires_in": 300})
    assert make_source().fetch() == Grant("token-1", 300.0)
    (received,) = issuer.received
    assert (received.method, received.fields["content-type"]) == ("POST", "application/x-www-form-urlencoded")
    assert received.form == {"grant_type": "client_credentials"}
    assert received.fields["authorization"] == "Basic " + base64.b64encode(b"app:secret").decode()


@pytest.mark.parametrize(
    ("client_id", "secret", "pair"),
    [
        pytest.param("a:b", "c:d", b"a%3Ab:c%3Ad", id="colon"),
        pytest.param("a b", "c+d", b"a+b:c%2Bd", id="space-and-plus"),
        pytest.param("a%b", "c/d=", b"a%25b:c%2Fd%3D", id="percent-slash-equals"),
        pytest.param("é", "ü€", b"%C3%A9:%C3%BC%E2%82%AC", id="beyond-ascii"),
        pytest.param("a\n", "b\r\n", b"a%0A:b%0D%0A", id="line-breaks"),
    ],
)
def test_basic_authentication_form_encodes_both_parts(issuer, make_source, client_id, secret, pair: bytes) -> None:
    make_source(secret, client_id).fetch()
    assert base64.b64decode(issuer.received[0].fields["authorization"].removeprefix("Basic ")) == pair


def test_secret_by_post_goes_into_the_form_and_into_no_header(issuer, make_source) -> None:
    make_source("s:c é&=+", "a b", auth_method="client_secret_post").fetch()
    (received,) = issuer.received
    expected = {"grant_type": "client_credentials", "client_id": "a b", "client_secret": "s:c é&=+"}
    assert received.form == expected
    assert "authorization" not in received.fields


@pytest.mark.parametrize("auth_method", ["client_secret_basic", "client_secret_post"])
def test_further_fields_go_beside_the_grant_type(issuer, make_source, auth_method: str) -> None:
    make_source(auth_method=auth_method, fields={"scope": "a b", "audience": "https://x/é"}).fetch()
    form = issuer.received[0].form
    assert (form["grant_type"], form["scope"], form["audience"]) == ("client_credentials", "a b", "https://x/é")


@pytest.mark.parametrize("auth_method", ["client_secret_basic", "client_secret_post"])
def test_secret_is_read_again_for_each_fetch(issuer, make_source, auth_method: str) -> None:
    source = make_source(iter(["old", "new"]), auth_method=auth_method)
    source.fetch()
    source.fetch()
    first, second = issuer.received
    assert (first.body, first.fields.get("authorization")) != (second.body, second.fields.get("authorization"))


def test_unreadable_secret_is_a_failed_fetch_without_a_call(issuer, make_endpoint) -> None:
    def read_secret() -> str:
        raise TokenFetchError("no such file", refused=True)

    source = ClientCredentialsSource(make_endpoint(issuer.url), client_id="app", read_secret=read_secret)
    with pytest.raises(TokenFetchError, match="no such file"):
        source.fetch()
    assert issuer.connections == 0


def test_reply_without_an_expiry_lives_for_the_configured_default(issuer, make_source) -> None:
    assert make_source(default_lifetime_s=77.0).fetch().lifetime_s == 77.0


def test_refused_client_is_a_refused_fetch_that_shows_no_secret(issuer, make_source, mark: str) -> None:
    issuer.answer({"error": "invalid_client", "error_description": mark}, 401, WWW_Authenticate=f"Basic {mark}")
    with pytest.raises(TokenFetchError) as caught:
        make_source(mark).fetch()
    assert caught.value.refused
    assert str(caught.value) == "token endpoint: status 401"


def test_printed_source_shows_no_secret(make_source, mark: str) -> None:
    source = make_source(mark)
    assert mark not in repr(source) + repr(vars(source))
