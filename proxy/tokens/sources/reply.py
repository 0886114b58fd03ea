"""From a JSON reply to a Grant: which replies count, and how long the token lives.

A reply comes from a token endpoint or from something on this host, such as a program's output.
"""

import math
import re
from codecs import BOM_UTF8
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import jiter

from proxy.tokens.sources.base import Grant, TokenFetchError
from proxy.tokens.sources.endpoint import Reply
from proxy.tokens.sources.http_date import parse_http_date
from proxy.tokens.sources.jwt_claims import life_left_s, whole_life_s
from proxy.tokens.sources.oauth_error import PASSING_CODES, error_code
from proxy.tokens.sources.retry_after import parse_retry_after

TOKEN_MOST_CHARS = 16 * 1024
# No expiry that is meant lies so far ahead; one in microseconds does.
_EXPIRY_MOST_S = 10 * 365.25 * 86_400
# RFC 6750 §2.1, b64token: nothing else may stand in a header, least of all CR or LF.
_BEARER_TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
_DIGITS = re.compile(r"[0-9]{1,15}(\.[0-9]{1,9})?")
_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")  # RFC 6901 §4: no leading zeros
_ABSENT = object()


@dataclass(frozen=True, slots=True)
class ReplyShape:
    """Where in a reply the token and its expiry stand: RFC 6901 pointers. The defaults are RFC 6749 §5.1's names."""

    token: str = "/access_token"
    expires_in: str | None = "/expires_in"
    expires_at: str | None = None
    default_lifetime_s: float = 300.0
    token_types: tuple[str, ...] = ("bearer",)  # in lower case: RFC 6749 §5.1


def read_grant(reply: Reply, shape: ReplyShape) -> Grant:
    """The token and its lifetime. Raises TokenFetchError, whose text names what is wrong and quotes nothing.

    An absolute expiry counts from the reply's Date; a JWT counts as new, so its life is exp - iat.
    """
    body = reply.body.removeprefix(BOM_UTF8)  # RFC 8259 §8.1: no one may send it, and one may skip it
    try:
        document = jiter.from_json(body, cache_mode="none")
    except ValueError:
        raise TokenFetchError("token endpoint: the reply is not JSON") from None
    token = _at(document, shape.token)
    if not isinstance(token, str) or not token:
        _check_no_error(reply, body)
    token_type = _at(document, "/token_type")
    if token_type is not _ABSENT and (not isinstance(token_type, str) or token_type.lower() not in shape.token_types):
        raise TokenFetchError("token endpoint: token_type is not Bearer")
    return _grant(document, shape, read_clock=lambda: _date(reply), life_by_claims=whole_life_s)


def _check_no_error(reply: Reply, body: bytes) -> None:
    """Some servers send an error of RFC 6749 §5.2 with 200."""
    code = error_code(body)
    if code is not None:
        raise TokenFetchError(
            f"token endpoint: status {reply.status}, {code}",
            refused=code not in PASSING_CODES,
            retry_after_s=parse_retry_after(reply.fields.get("Retry-After")),
        )


def read_local_grant(document: object, shape: ReplyShape, *, now: float) -> Grant:
    """As `read_grant`, for JSON that came without a Date: `now` is this host's wall clock before it was asked for.

    Its token may be older than the reply, so a JWT lives for what is left, min(exp - now, exp - iat).
    """
    return _grant(document, shape, read_clock=lambda: now, life_by_claims=lambda token: life_left_s(token, now))


def read_text_grant(text: bytes, where: str, *, now: float, default_lifetime_s: float) -> Grant:
    """As `read_local_grant`, for a token as plain text; one line break at its end, as `echo` adds it, is left out."""
    line = text.removesuffix(b"\n").removesuffix(b"\r")
    if b"\n" in line:
        raise TokenFetchError(f"more than one line at {where}: the token alone is expected there")
    access_token = check_token(line.decode("latin-1"), where)  # which reads any byte; check_token knows better
    left_s = life_left_s(access_token, now)
    return Grant(access_token, default_lifetime_s if left_s is None else left_s)


def check_token(value: object, where: str) -> str:
    """The value itself when it can be sent as a bearer token."""
    if not isinstance(value, str) or not value:
        raise TokenFetchError(f"no token at {where}: a non-empty string is expected there")
    if len(value) > TOKEN_MOST_CHARS:
        raise TokenFetchError(f"the token at {where} is longer than {TOKEN_MOST_CHARS} characters")
    if not _BEARER_TOKEN.fullmatch(value):
        raise TokenFetchError(f"the token at {where} has characters that RFC 6750 does not allow")
    return value


def _grant(
    document: object,
    shape: ReplyShape,
    *,
    read_clock: Callable[[], float],
    life_by_claims: Callable[[str], float | None],
) -> Grant:
    access_token = check_token(_at(document, shape.token), shape.token or "the root")
    lifetime_s = _told_lifetime_s(document, shape, read_clock)
    if lifetime_s is None:
        lifetime_s = life_by_claims(access_token)
    return Grant(access_token, shape.default_lifetime_s if lifetime_s is None else lifetime_s)


def _told_lifetime_s(document: object, shape: ReplyShape, read_clock: Callable[[], float]) -> float | None:
    """`expires_in`, else an absolute expiry minus the time by the clock that it is on; None where neither is told."""
    if shape.expires_at is not None:
        expires_at = _at(document, shape.expires_at)
        if expires_at is not _ABSENT:
            return _checked_time_left(_instant(expires_at, shape.expires_at) - read_clock(), shape.expires_at)
    elif shape.expires_in is not None:
        expires_in = _at(document, shape.expires_in)
        if expires_in is not _ABSENT:
            return _checked_lifetime(_number(expires_in, shape.expires_in), shape.expires_in)
    return None


def _checked_lifetime(lifetime_s: float, where: str) -> float:
    if not math.isfinite(lifetime_s) or lifetime_s <= 0:
        raise TokenFetchError(f"the lifetime by {where} is not above 0 and finite")
    return lifetime_s


def _checked_time_left(left_s: float, where: str) -> float:
    if _checked_lifetime(left_s, where) > _EXPIRY_MOST_S:
        raise TokenFetchError(
            f"the expiry at {where} is more than 10 years ahead: seconds or milliseconds are expected"
        )
    return left_s


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
            moment = datetime.fromisoformat(value.upper())  # RFC 3339 §5.6: t and z may be in lower case
        except ValueError:
            raise TokenFetchError(f"the expiry at {where} is neither a number nor an RFC 3339 time") from None
        if moment.tzinfo is None:
            raise TokenFetchError(f"the expiry at {where} has no zone")
        return moment.timestamp()
    seconds = _number(value, where)
    return seconds / 1000 if seconds > 1e11 else seconds


def _date(reply: Reply) -> float:
    """The issuer's own clock at the time of the reply: its expiry is on that clock, not on ours."""
    date = parse_http_date(reply.fields.get("Date", ""))
    if date is None:
        raise TokenFetchError("an absolute expiry needs the reply's Date field, and there is none")
    return date


def has_value(document: object, pointer: str) -> bool:
    """Whether an RFC 6901 pointer names anything there; null counts as nothing."""
    return _at(document, pointer) is not _ABSENT


def _at(document: Any, pointer: str) -> Any:
    """The value that an RFC 6901 pointer names, or _ABSENT; null counts as absent."""
    value = document
    for part in pointer.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, list) and _INDEX.fullmatch(name) and int(name) < len(value):
            value = value[int(name)]
        else:
            return _ABSENT
    return _ABSENT if value is None else value
