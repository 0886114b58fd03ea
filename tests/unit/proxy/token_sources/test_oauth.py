"""From a section of OAuth 2, as the config file gives it, to the request that a token endpoint gets."""

import base64
import json
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from config import load
from proxy.token_sources import build_source
from proxy.tokens.sources.base import Grant, Source, TokenFetchError
from tests.support.certificates import self_signed
from tests.support.token_issuer import Issuer

_TYPE = "urn:ietf:params:oauth:token-type"
_UPSTREAM = {"name": "llm", "base_url": "https://llm.example.com/v1"}


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    issuer = Issuer()
    yield issuer
    issuer.close()


@pytest.fixture
def build(tmp_path: Path, issuer: Issuer) -> Iterator[Callable[..., Source]]:
    """The source of a section; the config file's folder is tmp_path."""
    sources: list[Source] = []

    def build(**section: Any) -> Source:
        shared = {"type": "client_credentials", "token_url": issuer.url, "client_id": "app"}
        file = tmp_path / "config.yaml"
        file.write_text(yaml.safe_dump({"token_sources": {"corp": {**shared, **section}}, "upstreams": [_UPSTREAM]}))
        sources.append(build_source(load(file, {}).token_sources["corp"]))
        return sources[-1]

    yield build
    for source in sources:
        source.close()


def _form(issuer: Issuer, source: Source) -> list[tuple[str, str]]:
    source.fetch()
    return sorted(issuer.received[-1].members)


def test_client_credentials_with_their_defaults(issuer, build) -> None:
    source = build(client_secret="s")
    assert source.fetch() == Grant("token-1", 300.0)
    (received,) = issuer.received
    assert received.form == {"grant_type": "client_credentials"}
    assert received.fields["authorization"] == "Basic " + base64.b64encode(b"app:s").decode()


def test_client_credentials_with_all_that_the_form_can_have(issuer, build, tmp_path: Path) -> None:
    (tmp_path / "tenant").write_text("t\n")
    more = {"scope": "a b", "audience": "x", "resource": ["x:y", "x:z"], "fields": {"tenant": {"file": "tenant"}}}
    source = build(auth_method="client_secret_post", client_secret="s", default_lifetime_s=77, **more)
    assert _form(issuer, source) == [
        ("audience", "x"),
        ("client_id", "app"),
        ("client_secret", "s"),
        ("grant_type", "client_credentials"),
        ("resource", "x:y"),
        ("resource", "x:z"),
        ("scope", "a b"),
        ("tenant", "t"),
    ]
    assert source.fetch().lifetime_s == 77.0


def test_token_exchange_with_its_defaults(issuer, build) -> None:
    source = build(type="token_exchange", auth_method="none", subject_token="theirs")
    assert _form(issuer, source) == [
        ("client_id", "app"),
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("subject_token", "theirs"),
        ("subject_token_type", f"{_TYPE}:jwt"),
    ]


def test_token_exchange_with_all_that_the_form_can_have(issuer, build, tmp_path: Path) -> None:
    (tmp_path / "subject").write_text("theirs\n")
    source = build(
        type="token_exchange",
        client_secret="s",
        subject_token={"file": "subject"},
        subject_token_type=f"{_TYPE}:id_token",
        actor_token="actor",
        actor_token_type=f"{_TYPE}:access_token",
        requested_token_type=f"{_TYPE}:access_token",
        scope="a",
        audience=["x", "y"],
        resource="https://z",
        fields={"tenant": "t"},
    )
    assert _form(issuer, source) == [
        ("actor_token", "actor"),
        ("actor_token_type", f"{_TYPE}:access_token"),
        ("audience", "x"),
        ("audience", "y"),
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("requested_token_type", f"{_TYPE}:access_token"),
        ("resource", "https://z"),
        ("scope", "a"),
        ("subject_token", "theirs"),
        ("subject_token_type", f"{_TYPE}:id_token"),
        ("tenant", "t"),
    ]


@pytest.mark.parametrize(
    ("requested", "counts"),
    [(None, False), (f"{_TYPE}:access_token", False), (f"{_TYPE}:id_token", True), (f"{_TYPE}:jwt", True)],
)
def test_token_that_is_no_access_token_counts_where_it_was_asked_for(issuer, build, requested, counts: bool) -> None:
    issuer.answer({"access_token": "id-token", "token_type": "N_A", "expires_in": 60})
    exchange = {"type": "token_exchange", "auth_method": "none", "subject_token": "theirs"}
    source = build(**exchange, requested_token_type=requested)
    if counts:
        assert source.fetch() == Grant("id-token", 60.0)
    else:
        with pytest.raises(TokenFetchError, match="token_type"):
            source.fetch()


@pytest.mark.parametrize("kind", ["secret", "subject_token"])
def test_rotated_secret_counts_at_the_next_fetch(issuer, build, tmp_path: Path, kind: str) -> None:
    section: dict[str, Any] = {"auth_method": "client_secret_post", "client_secret": {"file": "secret"}}
    if kind == "subject_token":
        section = {"type": "token_exchange", "auth_method": "none", "subject_token": {"file": "secret"}}
    file = tmp_path / "secret"
    file.write_text("old\n")
    source = build(**section)
    assert "old" in dict(_form(issuer, source)).values()
    file.write_text("new\n")
    assert "new" in dict(_form(issuer, source)).values()
    file.unlink()  # in the midst of the next rotation
    assert "new" in dict(_form(issuer, source)).values()


@pytest.mark.parametrize(
    ("settings", "audience"),
    [({}, None), ({"assertion_audience": "https://iam.example.com/"},) * 2],
    ids=["url", "own"],
)
def test_assertion_is_for_the_token_url_or_the_audience_that_is_set(issuer, build, settings, audience) -> None:
    key = ECKey.generate_key("P-256")
    source = build(auth_method="private_key_jwt", private_key=key.as_pem(private=True).decode(), **settings)
    token = jwt.decode(dict(_form(issuer, source))["client_assertion"], key, algorithms=["ES256"])
    expected = issuer.url if audience is None else audience["assertion_audience"]
    assert (token.claims["aud"], token.claims["iss"]) == (expected, "app")


def test_assertion_has_the_algorithm_and_the_key_id_that_are_set(issuer, build) -> None:
    key = RSAKey.generate_key(2048)
    text = json.dumps({**key.as_dict(private=True), "kid": "own", "alg": "RS512"})
    source = build(auth_method="private_key_jwt", private_key=text, key_id="k1", signing_alg="PS256")
    token = jwt.decode(dict(_form(issuer, source))["client_assertion"], key, algorithms=["PS256"])
    assert token.header == {"typ": "JWT", "alg": "PS256", "kid": "k1"}


def test_rotated_key_counts_at_the_next_fetch_and_a_spoilt_one_is_a_failed_fetch(issuer, build, tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    old, new, other = ECKey.generate_key("P-256"), ECKey.generate_key("P-256"), ECKey.generate_key("P-384")
    file.write_bytes(old.as_pem(private=True))
    source = build(auth_method="private_key_jwt", private_key={"file": "key.pem"}, signing_alg="ES256")
    for key in (old, new):
        file.write_bytes(key.as_pem(private=True))
        assert jwt.decode(dict(_form(issuer, source))["client_assertion"], key, algorithms=["ES256"])
    for text, reason in (
        ("s3cret-mark", "private_key: must be a private key as PEM without a passphrase or as a JWK"),
        (other.as_pem(private=True).decode(), "private_key: must be a key that signs with ES256"),
    ):
        file.write_text(text)
        with pytest.raises(TokenFetchError) as caught:
            source.fetch()
        assert not caught.value.refused  # no issuer has refused it: the next try may be soon
        assert str(caught.value).startswith(reason)
        assert "s3cret-mark" not in str(caught.value)
    assert len(issuer.received) == 2


@pytest.fixture
def mutual_issuer(tmp_path: Path) -> Iterator[Issuer]:
    """An issuer that lets only clients with `client-1.pem` or `client-2.pem` in; its own is `issuer.pem`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(self_signed(tmp_path / "issuer.pem", "issuer"))
    context.verify_mode = ssl.CERT_REQUIRED
    for name in ("client-1", "client-2"):
        context.load_verify_locations(self_signed(tmp_path / f"{name}.pem", name))
    issuer = Issuer(context)
    yield issuer
    issuer.close()


def _der(file: Path) -> bytes:
    text = file.read_text()
    return ssl.PEM_cert_to_DER_cert(text[text.index("-----BEGIN CERTIFICATE") :])


def test_client_certificate_is_shown_and_a_rotated_one_counts_at_the_next_fetch(
    mutual_issuer, build, tmp_path: Path
) -> None:
    file = tmp_path / "client.pem"
    file.write_bytes((tmp_path / "client-1.pem").read_bytes())
    tls = {"token_url": mutual_issuer.url, "ca_bundle": "issuer.pem", "client_cert": "client.pem"}
    source = build(auth_method="tls_client_auth", scope="a", **tls)
    assert _form(mutual_issuer, source) == [("client_id", "app"), ("grant_type", "client_credentials"), ("scope", "a")]
    file.write_bytes((tmp_path / "client-2.pem").read_bytes())
    source.fetch()
    shown = [received.client_certificate for received in mutual_issuer.received]
    assert shown == [_der(tmp_path / "client-1.pem"), _der(tmp_path / "client-2.pem")]
    file.write_text("half a certif")
    source.fetch()  # in the midst of the next rotation
    assert mutual_issuer.received[-1].client_certificate == _der(tmp_path / "client-2.pem")


def test_client_certificate_may_stand_beside_another_proof(mutual_issuer, build, tmp_path: Path) -> None:
    tls = {"token_url": mutual_issuer.url, "ca_bundle": "issuer.pem", "client_cert": "client-1.pem"}
    build(client_secret="s", **tls).fetch()
    (received,) = mutual_issuer.received
    assert received.client_certificate == _der(tmp_path / "client-1.pem")
    assert received.fields["authorization"].startswith("Basic ")
