"""The private key of a client that signs its assertions (`private_key_jwt`): from text to a JWK that says all about it.

Callers: the section in sources.py, which checks the key at start, and proxy/token_sources, which reads it for each use.
"""

import json
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, get_args

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey
from joserfc.util import urlsafe_b64encode

from config.errors import Fault

SigningKey: TypeAlias = RSAKey | ECKey
SigningAlg: TypeAlias = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"]

_KINDS: Mapping[str, type[RSAKey] | type[ECKey]] = {"RSA": RSAKey, "EC": ECKey}
# RFC 7518 §3.1, by curve for EC keys; RS256 is what every server knows.
_USUAL_ALG = {"RSA": "RS256", "P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
# RFC 7518 §3.3.
_RSA_LEAST_BITS = 2048
_EXPECTED = "must be a private key as PEM without a passphrase or as a JWK: RSA of 2048 bits or more, or EC"


def parse_private_key(text: str, *, alg: str | None = None, kid: str | None = None) -> SigningKey:
    """The key as a JWK with `alg`, and with `kid` and `x5t#S256` where they are known.

    text: PEM (PKCS#8, PKCS#1 or SEC 1), or a JWK (RFC 7517). `alg` and `kid` win over the JWK's own; with neither, the
    algorithm is RS256, or ES256, ES384 or ES512 by the curve. A certificate of the key in the same PEM text gives
    `x5t#S256`. Raises Fault, which quotes nothing of the text: no such key, or one that cannot sign with the algorithm.
    """
    try:
        members = json.loads(text) if text.lstrip().startswith("{") else _members_of_pem(text)
        usual_alg = _USUAL_ALG[members.get("crv", members["kty"])]
        members["alg"] = alg or members.get("alg", usual_alg)
        if kid is not None:
            members["kid"] = kid
        key = _KINDS[members["kty"]].import_key(members)
    except (JoseError, UnsupportedAlgorithm, ValueError, TypeError, KeyError, RecursionError):
        raise Fault(_EXPECTED) from None
    if not key.is_private or (isinstance(key, RSAKey) and key.raw_value.key_size < _RSA_LEAST_BITS):
        raise Fault(_EXPECTED)
    if members["alg"] not in get_args(SigningAlg) or not _signs(key):
        raise Fault(f"must be a key that signs with {alg}" if alg else "must be a key that its JWK lets sign")
    return key


def _members_of_pem(text: str) -> dict[str, Any]:
    pem = text.encode()
    native = load_pem_private_key(pem, password=None)
    key: SigningKey
    if isinstance(native, RSAPrivateKey):
        key = RSAKey.import_key(native)
    elif isinstance(native, EllipticCurvePrivateKey):
        key = ECKey.import_key(native)
    else:
        raise ValueError
    members: dict[str, Any] = key.as_dict(private=True)
    # RFC 7515 §4.1.8: how Entra ID finds the key, as it knows certificates only.
    for certificate in x509.load_pem_x509_certificates(pem) if "CERTIFICATE" in text else ():
        if certificate.public_key() == native.public_key():
            members["x5t#S256"] = urlsafe_b64encode(certificate.fingerprint(SHA256())).decode()
    return members


def _signs(key: SigningKey) -> bool:
    """Found by doing it: kind, curve, and the JWK's own alg, use and key_ops all count."""
    try:
        jws.serialize_compact({"alg": str(key.alg)}, b"", key, algorithms=[str(key.alg)])
    except (JoseError, ValueError):
        return False
    return True
