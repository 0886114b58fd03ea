import base64
from collections.abc import Callable

import pytest

from proxy.tokens.sources.base import Grant, TokenFetchError
from proxy.tokens.sources.client_auth import ClientAuth, client_id_alone, client_secret_basic, client_secret_post
from proxy.tokens.sources.client_credentials import ClientCredentialsSource
from proxy.tokens.sources.oauth_client import Form, OAuthClient
from proxy.tokens.sources.reply import ReplyShape

_BASIC = client_secret_basic("app", lambda: "secret")


@pytest.fixture
def make_source(issuer, make_endpoint) -> Callable[..., ClientCredentialsSource]:
    def make_source(
        authenticate: ClientAuth = _BASIC,
        read_fields: Callable[[], Form] = dict,
        **shape: float,
    ) -> ClientCredentialsSource:
        return ClientCredentialsSource(
            OAuthClient(make_endpoint(issuer.url), authenticate, ReplyShape(**shape)), read_fields
        )

    return make_source


def test_grant_is_asked_for_as_rfc_6749_has_it(issuer, make_source) -> None:
    issuer.answer({"access_token": "token-1", "token_type": "Bearer", "expires_in": 300})
    assert make_source().fetch() == Grant("token-1", 300.0)
    (received,) = issuer.received
    assert (received.method, received.fields["content-type"]) == ("POST", "application/x-www-form-urlencoded")
    assert received.form == {"grant_type": "client_credentials"}
    assert received.fields["authorization"] == "Basic " + base64.b64encode(b"app:secret").decode()


def test_proof_in_the_form_stands_beside_the_grant(issuer, make_source) -> None:
    make_source(client_secret_post("a b", lambda: "s:c é&=+")).fetch()
    (received,) = issuer.received
    assert received.form == {"grant_type": "client_credentials", "client_id": "a b", "client_secret": "s:c é&=+"}
    assert "authorization" not in received.fields


def test_further_fields_go_beside_the_grant_type_and_lists_as_repeated_members(issuer, make_source) -> None:
    fields = {"scope": "a b", "audience": ("https://x/é",), "resource": ["https://y", "https://z"], "empty": ""}
    make_source(read_fields=lambda: fields).fetch()
    assert sorted(issuer.received[0].members) == [
        ("audience", "https://x/é"),
        ("empty", ""),
        ("grant_type", "client_credentials"),
        ("resource", "https://y"),
        ("resource", "https://z"),
        ("scope", "a b"),
    ]


def test_proof_and_fields_are_read_again_for_each_fetch(issuer, make_source) -> None:
    secrets, tenants = iter(["old", "new"]), iter(["one", "two"])
    source = make_source(client_secret_post("app", lambda: next(secrets)), lambda: {"tenant": next(tenants)})
    source.fetch()
    source.fetch()
    forms = [received.form for received in issuer.received]
    assert [(form["client_secret"], form["tenant"]) for form in forms] == [("old", "one"), ("new", "two")]


def test_unreadable_secret_is_a_failed_fetch_without_a_call(issuer, make_source) -> None:
    def read_secret() -> str:
        raise TokenFetchError("no such file", refused=True)

    with pytest.raises(TokenFetchError, match="no such file"):
        make_source(client_secret_basic("app", read_secret)).fetch()
    assert issuer.connections == 0


def test_reply_without_an_expiry_lives_for_the_configured_default(issuer, make_source) -> None:
    assert make_source(default_lifetime_s=77.0).fetch().lifetime_s == 77.0


def test_refused_client_is_a_refused_fetch_that_names_the_code_and_shows_no_secret(
    issuer, make_source, mark: str
) -> None:
    issuer.answer({"error": "invalid_client", "error_description": mark}, 401, WWW_Authenticate=f"Basic {mark}")
    with pytest.raises(TokenFetchError) as caught:
        make_source(client_secret_basic("app", lambda: mark)).fetch()
    assert caught.value.refused
    assert str(caught.value) == "token endpoint: status 401, invalid_client"


def test_closed_source_fetches_no_more(issuer, make_source) -> None:
    source = make_source(client_id_alone("app"))
    source.close()
    with pytest.raises(TokenFetchError, match="closed"):
        source.fetch()
    assert issuer.connections == 0


def test_printed_source_shows_no_secret(make_source, mark: str) -> None:
    source = make_source(client_secret_basic("app", lambda: mark))
    assert mark not in repr(source) + repr(vars(source)) + repr(vars(source._client))
