"""How a client proves who it is at a token endpoint of OAuth 2: one function for each method.

Each gives a function that makes the proof for one request: secrets and keys are read anew each time, and an assertion
is good for one use. What is asked for is left to the grants. Called when a source is built, in proxy/token_sources.
Names of the methods: RFC 7591 §2 and RFC 8705 §2.1.1.
"""

import base64
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias
from urllib.parse import quote_plus

from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

# RFC 7523 §3: the server may refuse one that lives "unreasonably far" ahead. It is used at once, so a minute is for
# clocks that differ.
ASSERTION_LIFE_S = 60
_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
# What a JWK and the header of a JWS both have: how the server finds the key (RFC 7515 §4.1).
_OF_THE_KEY = ("alg", "kid", "x5t#S256")


@dataclass(frozen=True, slots=True)
class Proof:
    """What a token request carries beside the grant: members of its form, and header fields."""

    form: Mapping[str, str] = field(default_factory=dict, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


ClientAuth: TypeAlias = Callable[[], Proof]


def client_secret_basic(client_id: str, read_secret: Callable[[], str]) -> ClientAuth:
    """HTTP Basic. RFC 6749 §2.3.1: both parts are form-encoded before they are joined, unlike in plain Basic."""

    def prove() -> Proof:
        pair = f"{quote_plus(client_id)}:{quote_plus(read_secret())}"
        return Proof(headers={"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()})

    return prove


def client_secret_post(client_id: str, read_secret: Callable[[], str]) -> ClientAuth:
    """The secret in the form: RFC 6749 §2.3.1, for servers that have no Basic."""
    return lambda: Proof(form={"client_id": client_id, "client_secret": read_secret()})


def private_key_jwt(
    client_id: str,
    read_key: Callable[[], RSAKey | ECKey],
    audience: str,
    *,
    read_clock: Callable[[], float] = time.time,
) -> ClientAuth:
    """A JWT of 60 s signed with the client's key: RFC 7523 §2.2 and §3. The key is a JWK that says its `alg`.

    `audience`: what the server calls itself, its token URL as a rule. `read_clock` gives Unix seconds.
    """

    def prove() -> Proof:
        issued_at = int(read_clock())
        claims: dict[str, str | int] = {
            "iss": client_id,
            "sub": client_id,
            "aud": audience,
            "jti": secrets.token_urlsafe(16),
            "iat": issued_at,
            "exp": issued_at + ASSERTION_LIFE_S,
        }
        assertion = _sign(claims, read_key())
        # RFC 7521 §4.2 leaves client_id open; Entra ID asks for it.
        form = {"client_id": client_id, "client_assertion_type": _ASSERTION_TYPE, "client_assertion": assertion}
        return Proof(form=form)

    return prove


def client_id_alone(client_id: str) -> ClientAuth:
    """For `tls_client_auth`, whose proof is the certificate of the connection (RFC 8705 §2.1), and for `none`: the
    server then knows the client by other means, such as the token that is exchanged."""
    return lambda: Proof(form={"client_id": client_id})


def _sign(claims: dict[str, str | int], key: RSAKey | ECKey) -> str:
    header = {name: value for name in _OF_THE_KEY if isinstance(value := key.get(name), str)}
    return jwt.encode(header, claims, key, algorithms=[header["alg"]])
