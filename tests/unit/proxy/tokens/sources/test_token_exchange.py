from collections.abc import Callable, Iterator

import pytest

from proxy.tokens.sources.base import Grant, TokenFetchError
from proxy.tokens.sources.client_auth import client_id_alone
from proxy.tokens.sources.oauth_client import OAuthClient
from proxy.tokens.sources.reply import ReplyShape
from proxy.tokens.sources.token_exchange import GivenToken, TokenExchangeSource

_SHAPE = ReplyShape()
_TYPE = "urn:ietf:params:oauth:token-type"
_GRANT = {"grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", "client_id": "app"}
_SUBJECT = {"subject_token": "theirs", "subject_token_type": f"{_TYPE}:jwt"}


@pytest.fixture
def make_source(issuer, make_endpoint) -> Callable[..., TokenExchangeSource]:
    def make_source(
        shape: ReplyShape = _SHAPE,
        read_subject: Callable[[], str] = lambda: "theirs",
        **options,
    ) -> TokenExchangeSource:
        client = OAuthClient(make_endpoint(issuer.url), client_id_alone("app"), shape)
        return TokenExchangeSource(client, GivenToken(read_subject, f"{_TYPE}:jwt"), **options)

    return make_source


def test_exchange_is_asked_for_as_rfc_8693_has_it(issuer, make_source) -> None:
    issued = {"access_token": "ours", "issued_token_type": f"{_TYPE}:access_token", "token_type": "Bearer"}
    issuer.answer({**issued, "expires_in": 60})
    assert make_source().fetch() == Grant("ours", 60.0)
    (received,) = issuer.received
    assert (received.method, received.fields["content-type"]) == ("POST", "application/x-www-form-urlencoded")
    assert received.form == {**_GRANT, **_SUBJECT}


def test_actor_stands_beside_the_subject_with_its_type(issuer, make_source) -> None:
    make_source(actor=GivenToken(lambda: "actor", f"{_TYPE}:access_token")).fetch()
    actor = {"actor_token": "actor", "actor_token_type": f"{_TYPE}:access_token"}
    assert issuer.received[0].form == {**_GRANT, **_SUBJECT, **actor}


def test_further_fields_go_beside_it_and_lists_as_repeated_members(issuer, make_source) -> None:
    fields = {"requested_token_type": f"{_TYPE}:access_token", "audience": ("a", "b"), "resource": ("https://c",)}
    make_source(read_fields=lambda: fields).fetch()
    assert sorted(set(issuer.received[0].members) - set({**_GRANT, **_SUBJECT}.items())) == [
        ("audience", "a"),
        ("audience", "b"),
        ("requested_token_type", f"{_TYPE}:access_token"),
        ("resource", "https://c"),
    ]


def test_tokens_to_exchange_are_read_again_for_each_fetch(issuer, make_source) -> None:
    subjects: Iterator[str] = iter(["first", "second"])
    actors: Iterator[str] = iter(["third", "fourth"])
    source = make_source(read_subject=lambda: next(subjects), actor=GivenToken(lambda: next(actors), f"{_TYPE}:jwt"))
    source.fetch()
    source.fetch()
    forms = [received.form for received in issuer.received]
    assert [(form["subject_token"], form["actor_token"]) for form in forms] == [
        ("first", "third"),
        ("second", "fourth"),
    ]


def test_unreadable_subject_token_is_a_failed_fetch_without_a_call(issuer, make_source) -> None:
    def read_subject() -> str:
        raise TokenFetchError("no such file", refused=True)

    with pytest.raises(TokenFetchError, match="no such file"):
        make_source(read_subject=read_subject).fetch()
    assert issuer.connections == 0


def test_subject_token_that_ran_out_is_a_refused_fetch_that_quotes_nothing(issuer, make_source, mark: str) -> None:
    issuer.answer({"error": "invalid_grant", "error_description": mark}, 400)
    with pytest.raises(TokenFetchError) as caught:
        make_source(read_subject=lambda: mark).fetch()
    assert caught.value.refused
    assert str(caught.value) == "token endpoint: status 400, invalid_grant"


def test_token_type_n_a_counts_where_the_shape_allows_it(issuer, make_source) -> None:
    issuer.answer({"access_token": "id-token", "token_type": "N_A", "issued_token_type": f"{_TYPE}:id_token"})
    with pytest.raises(TokenFetchError, match="token_type"):
        make_source().fetch()
    assert make_source(ReplyShape(token_types=("bearer", "n_a"))).fetch().access_token == "id-token"


def test_closed_source_fetches_no_more(issuer, make_source) -> None:
    source = make_source()
    source.close()
    with pytest.raises(TokenFetchError, match="closed"):
        source.fetch()
    assert issuer.connections == 0


def test_printed_source_shows_no_token(make_source, mark: str) -> None:
    source = make_source(read_subject=lambda: mark)
    assert mark not in repr(source) + repr(vars(source))
