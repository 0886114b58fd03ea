import base64
import hashlib
import json
import ssl
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256K1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from joserfc import jws
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from config.errors import Fault
from config.private_key import SigningKey, parse_private_key
from tests.support.certificates import self_signed

_NO_KEY = "must be a private key as PEM without a passphrase or as a JWK: RSA of 2048 bits or more, or EC"
_RSA = RSAKey.generate_key(2048)
_KEYS: dict[str, SigningKey] = {
    "RSA": _RSA,
    "P-256": ECKey.generate_key("P-256"),
    "P-384": ECKey.generate_key("P-384"),
    "P-521": ECKey.generate_key("P-521"),
}
_USUAL_ALG = {"RSA": "RS256", "P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}


def _pem(key: SigningKey, form: PrivateFormat = PrivateFormat.PKCS8) -> str:
    assert key.private_key is not None
    return key.private_key.private_bytes(Encoding.PEM, form, NoEncryption()).decode()


def _jwk(key: SigningKey, **members: object) -> str:
    return json.dumps({**key.as_dict(private=True), **members})


def _signs_as(parsed: SigningKey, key: SigningKey, alg: str) -> bool:
    """Whether the public half of `key` takes a signature by what was parsed."""
    text = jws.serialize_compact({"alg": alg}, b"text", parsed, algorithms=[alg])
    public = type(key).import_key(key.as_dict(private=False))
    return jws.deserialize_compact(text, public, algorithms=[alg]).payload == b"text"


@pytest.mark.parametrize("kind", _KEYS)
@pytest.mark.parametrize(
    "write",
    [
        pytest.param(_pem, id="pkcs8"),
        pytest.param(lambda key: _pem(key, PrivateFormat.TraditionalOpenSSL), id="pkcs1-or-sec1"),
        pytest.param(lambda key: "\ufeff" + _pem(key).replace("\n", "\r\n"), id="pem-from-windows"),
        pytest.param(_jwk, id="jwk"),
        pytest.param(lambda key: f"\n {_jwk(key)}\n", id="jwk-in-white-space"),
    ],
)
def test_key_in_each_form_signs_with_the_usual_algorithm_of_its_kind(kind: str, write) -> None:
    parsed = parse_private_key(write(_KEYS[kind]))
    assert (parsed.alg, parsed.kid, parsed.get("x5t#S256")) == (_USUAL_ALG[kind], None, None)
    assert _signs_as(parsed, _KEYS[kind], _USUAL_ALG[kind])


@pytest.mark.parametrize("alg", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"])
def test_algorithm_that_is_asked_for_wins(alg: str) -> None:
    for text in (_pem(_RSA), _jwk(_RSA), _jwk(_RSA, alg="RS384")):
        parsed = parse_private_key(text, alg=alg)
        assert parsed.alg == alg
        assert _signs_as(parsed, _RSA, alg)


def test_jwk_says_its_own_algorithm_and_id() -> None:
    text = _jwk(_RSA, alg="PS256", kid="k1", use="sig", key_ops=["sign"], **{"x5t#S256": "abc"})
    parsed = parse_private_key(text)
    assert (parsed.alg, parsed.kid, parsed.get("x5t#S256")) == ("PS256", "k1", "abc")
    assert parse_private_key(text, kid="k2").kid == "k2"


def test_id_is_given_to_a_pem_key() -> None:
    assert parse_private_key(_pem(_RSA), kid="k1").kid == "k1"


@pytest.mark.parametrize("order", ["key-first", "certificate-first"])
def test_certificate_beside_the_key_gives_its_thumbprint(tmp_path: Path, order: str) -> None:
    text = self_signed(tmp_path / "client.pem", "client").read_text()
    at = text.index("-----BEGIN CERTIFICATE")
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(text[at:])).digest()
    parsed = parse_private_key(text if order == "key-first" else text[at:] + text[:at])
    assert parsed.get("x5t#S256") == base64.urlsafe_b64encode(digest).decode().rstrip("=")


def test_certificate_of_another_key_gives_no_thumbprint(tmp_path: Path) -> None:
    text = self_signed(tmp_path / "client.pem", "client").read_text()
    parsed = parse_private_key(_pem(_RSA) + text[text.index("-----BEGIN CERTIFICATE") :])
    assert parsed.get("x5t#S256") is None


def _encrypted() -> str:
    key = _RSA.private_key
    assert isinstance(key, RSAPrivateKey)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")).decode()


def _of_openssl(*arguments: str) -> str:
    return subprocess.run(["openssl", "genpkey", *arguments], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda: "s3cret-mark", id="text"),
        pytest.param(lambda: "/run/secrets/key.pem", id="path"),
        pytest.param(lambda: "\udcff", id="no-unicode"),
        pytest.param(lambda: _pem(_RSA)[:-200], id="pem-cut-off"),
        pytest.param(lambda: _pem(_RSA).replace("\n", "\\n"), id="pem-with-escaped-line-breaks"),
        pytest.param(lambda: _RSA.as_pem(private=False).decode(), id="public-pem"),
        pytest.param(_encrypted, id="pem-with-passphrase"),
        pytest.param(lambda: _of_openssl("-algorithm", "ed25519"), id="ed25519-pem"),
        pytest.param(lambda: OKPKey.generate_key("Ed25519").as_pem(private=True).decode(), id="okp-pem"),
        pytest.param(lambda: _secp256k1(), id="another-curve"),
        pytest.param(lambda: "{", id="no-json"),
        pytest.param(lambda: "{}", id="empty-jwk"),
        pytest.param(lambda: '{"a":' * 100_000, id="deep-json"),
        pytest.param(lambda: json.dumps({"keys": [_RSA.as_dict(private=True)]}), id="jwk-set"),
        pytest.param(lambda: json.dumps(_RSA.as_dict(private=False)), id="public-jwk"),
        pytest.param(lambda: json.dumps(OctKey.generate_key(256).as_dict(private=True)), id="symmetric-jwk"),
        pytest.param(lambda: json.dumps(OKPKey.generate_key("Ed25519").as_dict(private=True)), id="okp-jwk"),
        pytest.param(lambda: _jwk(_RSA, n="AA"), id="wrong-modulus"),
        pytest.param(lambda: _jwk(_RSA, d=5), id="number-for-text"),
        pytest.param(lambda: _jwk(_RSA, kty=["RSA"]), id="list-for-text"),
        pytest.param(lambda: _jwk(_RSA, kid=5), id="number-for-id"),
        pytest.param(lambda: _jwk(_RSA, alg=5), id="number-for-algorithm"),
        pytest.param(lambda: _jwk(_KEYS["P-256"], crv="P-257"), id="unknown-curve"),
        pytest.param(lambda: _jwk(_KEYS["P-256"], crv="P-384"), id="point-of-another-curve"),
    ],
)
def test_text_that_is_no_usable_private_key_is_a_fault_that_quotes_nothing(write) -> None:
    with pytest.raises(Fault) as caught:
        parse_private_key(write())
    assert str(caught.value) == _NO_KEY


def _secp256k1() -> str:
    key = generate_private_key(SECP256K1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
def test_rsa_key_of_too_few_bits_is_a_fault() -> None:
    # 2040 is the largest size below the limit that the library makes.
    with pytest.raises(Fault, match="2048 bits or more"):
        parse_private_key(_pem(RSAKey.generate_key(2040)))


@pytest.mark.parametrize(
    ("kind", "alg"), [("RSA", "ES256"), ("P-256", "RS256"), ("P-256", "ES384"), ("P-384", "ES256"), ("P-521", "PS512")]
)
def test_algorithm_of_another_kind_of_key_is_a_fault(kind: str, alg: str) -> None:
    for text in (_pem(_KEYS[kind]), _jwk(_KEYS[kind])):
        with pytest.raises(Fault) as caught:
            parse_private_key(text, alg=alg)
        assert str(caught.value) == f"must be a key that signs with {alg}"


@pytest.mark.parametrize(
    "members",
    [
        {"use": "enc"},
        {"key_ops": ["verify"]},
        {"alg": "ES256"},
        {"alg": "RSA-OAEP"},
        {"alg": "HS256"},
        {"alg": "none"},
        {"alg": "s3cret-mark"},
    ],
    ids=["use", "key_ops", "kind", "encryption", "symmetric", "none", "unknown"],
)
def test_jwk_that_is_not_for_signatures_is_a_fault_that_quotes_nothing(members) -> None:
    with pytest.raises(Fault) as caught:
        parse_private_key(_jwk(_RSA, **members))
    assert str(caught.value) == "must be a key that its JWK lets sign"
