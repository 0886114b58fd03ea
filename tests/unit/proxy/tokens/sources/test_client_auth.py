import base64
from collections.abc import Callable, Iterator

import pytest
from joserfc import jwt
from joserfc.errors import BadSignatureError
from joserfc.jwk import ECKey, RSAKey

from proxy.tokens.sources import client_auth
from tests.support.clock import Clock

_NOW = 1_800_000_000.75
_AUDIENCE = "https://iam.example.com/token"
_KEYS: dict[str, RSAKey | ECKey] = {
    "RS256": RSAKey.generate_key(2048, {"alg": "RS256"}),
    "PS384": RSAKey.generate_key(2048, {"alg": "PS384"}),
    "ES256": ECKey.generate_key("P-256", {"alg": "ES256"}),
    "ES384": ECKey.generate_key("P-384", {"alg": "ES384"}),
    "ES512": ECKey.generate_key("P-521", {"alg": "ES512"}),
}


def _public(key: RSAKey | ECKey) -> RSAKey | ECKey:
    return type(key).import_key(key.as_dict(private=False))


def _assertion(key: RSAKey | ECKey, client_id: str = "app") -> jwt.Token:
    """The assertion as the server reads it, with the public half of the key."""
    proof = client_auth.private_key_jwt(client_id, lambda: key, _AUDIENCE, read_clock=Clock(_NOW))()
    return jwt.decode(proof.form["client_assertion"], _public(key), algorithms=[str(key.alg)])


@pytest.mark.parametrize(
    ("client_id", "secret", "pair"),
    [
        pytest.param("app", "secret", b"app:secret", id="plain"),
        pytest.param("a:b", "c:d", b"a%3Ab:c%3Ad", id="colon"),
        pytest.param("a b", "c+d", b"a+b:c%2Bd", id="space-and-plus"),
        pytest.param("a%b", "c/d=", b"a%25b:c%2Fd%3D", id="percent-slash-equals"),
        pytest.param("é", "ü€", b"%C3%A9:%C3%BC%E2%82%AC", id="beyond-ascii"),
        pytest.param("a\n", "b\r\n", b"a%0A:b%0D%0A", id="line-breaks"),
    ],
)
def test_basic_authentication_form_encodes_both_parts(client_id: str, secret: str, pair: bytes) -> None:
    proof = client_auth.client_secret_basic(client_id, lambda: secret)()
    assert proof.form == {}
    assert proof.headers == {"Authorization": "Basic " + base64.b64encode(pair).decode()}


def test_secret_by_post_goes_into_the_form_and_into_no_header() -> None:
    proof = client_auth.client_secret_post("a b", lambda: "s:c é&=+")()
    assert (proof.form, proof.headers) == ({"client_id": "a b", "client_secret": "s:c é&=+"}, {})


def test_client_id_alone_says_who_it_is_and_no_more() -> None:
    proof = client_auth.client_id_alone("app")()
    assert (proof.form, proof.headers) == ({"client_id": "app"}, {})


@pytest.mark.parametrize("method", [client_auth.client_secret_basic, client_auth.client_secret_post])
def test_secret_is_read_again_for_each_proof(method: Callable[..., client_auth.ClientAuth]) -> None:
    secrets: Iterator[str] = iter(["old", "new"])
    prove = method("app", lambda: next(secrets))
    assert prove() == method("app", lambda: "old")()
    assert prove() == method("app", lambda: "new")()


@pytest.mark.parametrize("alg", _KEYS)
def test_assertion_says_what_rfc_7523_asks_for_and_is_signed_by_the_key(alg: str) -> None:
    token = _assertion(_KEYS[alg])
    assert token.header == {"typ": "JWT", "alg": alg}
    assert token.claims.pop("jti")
    times = {"iat": 1_800_000_000, "exp": 1_800_000_060}
    assert token.claims == {"iss": "app", "sub": "app", "aud": _AUDIENCE, **times}


@pytest.mark.parametrize("alg", _KEYS)
def test_assertion_does_not_pass_for_one_of_another_key(alg: str) -> None:
    key = _KEYS[alg]
    other = RSAKey.generate_key(2048) if isinstance(key, RSAKey) else ECKey.generate_key(key.curve_name)
    proof = client_auth.private_key_jwt("app", lambda: key, _AUDIENCE)()
    with pytest.raises(BadSignatureError):
        jwt.decode(proof.form["client_assertion"], _public(other), algorithms=[alg])


def test_assertion_goes_into_the_form_with_its_type() -> None:
    proof = client_auth.private_key_jwt("app", lambda: _KEYS["ES256"], _AUDIENCE)()
    assert proof.headers == {}
    assert proof.form.keys() == {"client_id", "client_assertion", "client_assertion_type"}
    assert proof.form["client_id"] == "app"
    assert proof.form["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@pytest.mark.parametrize("name", ["kid", "x5t#S256"])
def test_header_tells_the_server_which_key_it_was(name: str) -> None:
    key = ECKey.import_key({**_KEYS["ES256"].as_dict(private=True), name: "k1", "use": "sig"})
    assert _assertion(key).header == {"typ": "JWT", "alg": "ES256", name: "k1"}


def test_no_two_assertions_are_the_same_and_the_key_is_read_for_each() -> None:
    keys = iter([_KEYS["ES256"], _KEYS["ES256"], _KEYS["RS256"]])
    prove = client_auth.private_key_jwt("app", lambda: next(keys), _AUDIENCE, read_clock=Clock(_NOW))
    public = [_public(_KEYS[alg]) for alg in ("ES256", "ES256", "RS256")]
    tokens = [jwt.decode(prove().form["client_assertion"], key, algorithms=["ES256", "RS256"]) for key in public]
    assert len({token.claims["jti"] for token in tokens}) == 3


def test_client_id_of_any_characters_stands_in_the_assertion() -> None:
    assert _assertion(_KEYS["ES256"], 'é"\\ \n').claims["sub"] == 'é"\\ \n'


def test_printed_proof_shows_no_secret(mark: str) -> None:
    for method in (client_auth.client_secret_basic, client_auth.client_secret_post):
        prove = method("app", lambda: mark)
        assert mark not in repr(prove) + repr(prove())
    assertion = client_auth.private_key_jwt("app", lambda: _KEYS["ES256"], _AUDIENCE)()
    assert assertion.form["client_assertion"] not in repr(assertion)
