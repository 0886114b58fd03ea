"""From a token endpoint's JSON reply to a Grant: which replies count, and how long the token lives."""

import base64
import json
import math
import re
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

import jiter

from proxy.tokens.sources.base import Grant, TokenFetchError
from proxy.tokens.sources.endpoint import Reply

TOKEN_MOST_CHARS = 16 * 1024
# RFC 6750 §2.1, b64token: nothing else may stand in a header, least of all CR or LF.
_BEARER_TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
_DIGITS = re.compile(r"[0-9]{1,15}(\.[0-9]{1,9})?")
_ABSENT = object()


@dataclass(frozen=True, slots=True)
class ReplyShape:
    """Where in a reply the token and its expiry stand: RFC 6901 pointers. The defaults are RFC 6749 §5.1's names."""

    token: str = "/access_token"
    expires_in: str | None = "/expires_in"
    expires_at: str | None = None
    default_lifetime_s: float = 300.0


def read_grant(reply: Reply, shape: ReplyShape) -> Grant:
    """The token and its lifetime. Raises TokenFetchError, whose text names what is wrong and quotes nothing."""
    try:
        document = jiter.from_json(reply.body, cache_mode="none")
    except ValueError:
        raise TokenFetchError("token endpoint: the reply is not JSON") from None
    access_token = check_token(_at(document, shape.token), shape.token)
    token_type = _at(document, "/token_type")
    if token_type is not _ABSENT and (not isinstance(token_type, str) or token_type.lower() != "bearer"):
        raise TokenFetchError("token endpoint: token_type is not Bearer")
    return Grant(access_token, _lifetime_s(document, access_token, reply, shape))


def check_token(value: object, where: str) -> str:
    """The value itself when it can be sent as a bearer token."""
    if not isinstance(value, str) or not value:
        raise TokenFetchError(f"no token at {where}: a non-empty string is expected there")
    if len(value) > TOKEN_MOST_CHARS:
        raise TokenFetchError(f"the token at {where} is longer than {TOKEN_MOST_CHARS} characters")
    if not _BEARER_TOKEN.fullmatch(value):
        raise TokenFetchError(f"the token at {where} has characters that RFC 6750 does not allow")
    return value


def _lifetime_s(document: object, access_token: str, reply: Reply, shape: ReplyShape) -> float:
    """`expires_in`, else an absolute expiry minus the reply's Date, else the JWT's exp - iat, else the default."""
    if shape.expires_at is not None:
        expires_at = _at(document, shape.expires_at)
        if expires_at is not _ABSENT:
            return _checked_lifetime(_instant(expires_at, shape.expires_at) - _date(reply), shape.expires_at)
    elif shape.expires_in is not None:
        expires_in = _at(document, shape.expires_in)
        if expires_in is not _ABSENT:
            return _checked_lifetime(_number(expires_in, shape.expires_in), shape.expires_in)
    from_claims = _jwt_lifetime_s(access_token)
    return shape.default_lifetime_s if from_claims is None else _checked_lifetime(from_claims, "the token's claims")


def _checked_lifetime(lifetime_s: float, where: str) -> float:
    if not math.isfinite(lifetime_s) or lifetime_s <= 0:
        raise TokenFetchError(f"the lifetime by {where} is not above 0 and finite")
    return lifetime_s


def _number(value: object, where: str) -> float:
    """A number or a digit string (some issuers quote it); a bool is an int to Python, not to us."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:  # a whole number of more than 308 digits, which JSON allows
            return math.inf
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        return float(value)
    raise TokenFetchError(f"the lifetime at {where} is not a number")


def _instant(value: object, where: str) -> float:
    """Unix seconds from a number (milliseconds where it is that large) or an RFC 3339 time."""
    if isinstance(value, str) and not _DIGITS.fullmatch(value):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise TokenFetchError(f"the expiry at {where} is neither a number nor an RFC 3339 time") from None
        if moment.tzinfo is None:
            raise TokenFetchError(f"the expiry at {where} has no zone")
        return moment.timestamp()
    seconds = _number(value, where)
    return seconds / 1000 if seconds > 1e11 else seconds


def _date(reply: Reply) -> float:
    """The issuer's own clock at the time of the reply: its expiry is on that clock, not on ours."""
    try:
        return parsedate_to_datetime(reply.fields["Date"]).timestamp()
    except (KeyError, ValueError, TypeError):
        raise TokenFetchError("an absolute expiry needs the reply's Date field, and there is none") from None


def _jwt_lifetime_s(access_token: str) -> float | None:
    """exp - iat of a JWT, read and not verified: whom the token is for is the upstream's to check."""
    parts = access_token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        lifetime_s = float(claims["exp"]) - float(claims["iat"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    return lifetime_s if math.isfinite(lifetime_s) and lifetime_s > 0 else None


def _at(document: Any, pointer: str) -> Any:
    """The value that an RFC 6901 pointer names, or _ABSENT; null counts as absent."""
    value = document
    for part in pointer.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, list) and name.isascii() and name.isdigit() and int(name) < len(value):
            value = value[int(name)]
        else:
            return _ABSENT
    return _ABSENT if value is None else value
