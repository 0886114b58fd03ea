"""How long a JWT lives by its own claims, read and not verified: whom the token is for is the upstream's to check."""

import base64
import json
import math
from typing import Any

from proxy.tokens.sources.base import TokenFetchError


def whole_life_s(access_token: str) -> float | None:
    """exp - iat: the life of a token that is new. None where it is no JWT or its claims do not tell."""
    claims = _claims(access_token)
    expires_at, issued_at = _instant(claims, "exp"), _instant(claims, "iat")
    if expires_at is None or issued_at is None:
        return None
    life_s = expires_at - issued_at
    return life_s if 0 < life_s < math.inf else None


def life_left_s(access_token: str, now: float) -> float | None:
    """exp - now: what is left to a token that may be older; `now` is this host's wall clock. None as above.

    Never more than the whole life, however late this host's clock is. Raises TokenFetchError: it has run out.
    """
    expires_at = _instant(_claims(access_token), "exp")
    if expires_at is None:
        return None
    if expires_at <= now:
        raise TokenFetchError(f"the token ran out {now - expires_at:.0f} s ago, by its exp and this host's clock")
    return min(expires_at - now, whole_life_s(access_token) or math.inf)


def _claims(access_token: str) -> Any:
    parts = access_token.split(".")
    if len(parts) != 3:
        return None
    try:
        return json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, RecursionError):
        return None


def _instant(claims: Any, name: str) -> float | None:
    """A claim of RFC 7519 §4.1 as Unix seconds."""
    try:
        instant = float(claims[name])
    except (ValueError, TypeError, KeyError, OverflowError):
        return None
    return instant if math.isfinite(instant) else None
