"""Access tokens: make, check and revoke them. `issuer` hands them out, `upstream` checks them.

A token says by itself when it was issued and when it ends, under an HMAC, so that two sandboxes that share a
key (SANDBOX_SIGNING_KEY) accept each other's without talking. It looks opaque: users are not to read it.
"""

import base64
import binascii
import hashlib
import hmac
import os
import secrets
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

TokenState = Literal["valid", "expired", "revoked", "bad", "missing"]

PREFIX = "sbx_"
# Issued at, expires at (µs since the epoch), serial, and a nonce that parts equal serials of two processes.
_CLAIMS = struct.Struct(">QQQ8s")
_SIGNATURE_BYTES = 16
_TOY_KEY = b"a public key: the sandbox listens on loopback only"


def signing_key() -> bytes:
    """Get the key from SANDBOX_SIGNING_KEY, else the fixed one that is good for a toy."""
    return os.environ.get("SANDBOX_SIGNING_KEY", "").encode() or _TOY_KEY


@dataclass(frozen=True)
class Finding:
    """What a check of a request's token found; the serial is known only where the signature is right."""

    state: TokenState
    serial: int | None = None


class TokenMint:
    """Makes and checks the tokens of one key."""

    def __init__(
        self, key: bytes, lifetime_s: float, clock: Callable[[], float] = time.time, *, single_active: bool = False
    ) -> None:
        """`single_active`: a new token ends all those before it."""
        if not 0 < lifetime_s <= 10**9:
            raise ValueError("a token must live longer than 0 and at most 1e9 seconds")
        self.lifetime_s = lifetime_s
        self._key = key
        self._clock = clock
        self._single_active = single_active
        self._serial = 0
        self._issued_us = 0
        self._revoked_us = 0

    def issue(self) -> str:
        """Make a token that is good from now on for lifetime_s."""
        if self._single_active:
            self.revoke_all()
        self._serial += 1
        # After every earlier issue and revocation, however coarse the clock and even if it steps back.
        self._issued_us = max(self._now_us(), self._issued_us + 1, self._revoked_us + 1)
        expires_us = self._issued_us + int(self.lifetime_s * 1e6)
        claims = _CLAIMS.pack(self._issued_us, expires_us, self._serial, secrets.token_bytes(8))
        return PREFIX + _encode(claims + self._sign(claims))

    def revoke_all(self) -> None:
        """Refuse from now on every token that was issued so far, by other processes too."""
        self._revoked_us = max(self._now_us(), self._issued_us)

    def check_authorization(self, values: list[str]) -> Finding:
        """Check the token in a request's Authorization fields (RFC 6750 §2.1); two fields are bad."""
        if not values:
            return Finding("missing")
        scheme, _, token = values[0].partition(" ")
        if len(values) > 1 or scheme.lower() != "bearer":
            return Finding("bad")
        return self.check(token.strip(" "))

    def check(self, token: str) -> Finding:
        """Tell whether a token is good now: valid until just before its expiry, expired from then on."""
        claims = self._verified_claims(token)
        if claims is None:
            return Finding("bad")
        issued_us, expires_us, serial, _ = _CLAIMS.unpack(claims)
        if issued_us <= self._revoked_us:
            return Finding("revoked", serial)
        return Finding("valid" if self._now_us() < expires_us else "expired", serial)

    def _verified_claims(self, token: str) -> bytes | None:
        sealed = _decode(token.removeprefix(PREFIX))
        claims, signature = sealed[: _CLAIMS.size], sealed[_CLAIMS.size :]
        # The decoder skips foreign characters; only the one spelling that was issued counts.
        if token != PREFIX + _encode(sealed) or not hmac.compare_digest(signature, self._sign(claims)):
            return None
        return claims

    def _sign(self, claims: bytes) -> bytes:
        return hmac.digest(self._key, claims, hashlib.sha256)[:_SIGNATURE_BYTES]

    def _now_us(self) -> int:
        return int(self._clock() * 1e6)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decode(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (ValueError, binascii.Error):
        return b""
