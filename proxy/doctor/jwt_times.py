"""The times that a JWT names, and how it is signed: read, not verified, and no other claim. Pure."""

import base64
import json
import math
from dataclasses import dataclass
from typing import Any

# RFC 7518 §3.1, RFC 8037 and RFC 9864; what else stands there is not shown, as anyone may have written it.
_ALGORITHMS = frozenset(
    {f"{family}{bits}" for family in ("HS", "RS", "PS", "ES") for bits in (256, 384, 512)}
    | {"none", "EdDSA", "Ed25519", "Ed448", "ES256K"}
)


@dataclass(frozen=True, slots=True)
class JwtTimes:
    """Seconds since 1970, None where a claim is absent or is no number (RFC 7519 §4.1)."""

    algorithm: str
    issued_at: float | None
    not_before: float | None
    expires_at: float | None

    @property
    def lifetime_s(self) -> float | None:
        """exp - iat, where both are there."""
        if self.expires_at is None or self.issued_at is None:
            return None
        return self.expires_at - self.issued_at


def read_jwt(token: str) -> JwtTimes | None:
    """The times of a token that is a JWT, else None."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    header, claims = _decoded(parts[0]), _decoded(parts[1])
    if header is None or claims is None or "alg" not in header:
        return None
    is_known = isinstance(header["alg"], str) and header["alg"] in _ALGORITHMS
    algorithm = header["alg"] if is_known else "an unregistered algorithm"
    return JwtTimes(algorithm, *(_number(claims.get(name)) for name in ("iat", "nbf", "exp")))


def _decoded(part: str) -> dict[str, Any] | None:
    try:
        document = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None
