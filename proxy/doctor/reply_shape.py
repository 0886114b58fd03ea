"""The shape of a token endpoint's JSON reply: which pointers exist and of which type, never a value. Pure.

Also where in it a token or an expiry seems to be, for a config that looks in another place.
"""

import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jiter

DEPTH_MOST = 5
POINTERS_MOST = 40
# By their letters alone: access_token, accessToken and access-token are one name.
_TOKEN_NAMES = ("accesstoken", "token", "bearertoken", "authtoken", "jwt", "idtoken", "bearer", "apitoken")
_EXPIRY_NAMES = (
    *("expiresin", "expirein", "expiresat", "expireat", "expires", "expire", "expiry", "expiration", "exp"),
    *("expireson", "expirydate", "expirationdate", "expiretime", "expirytime", "expirationtime", "ttl", "validity"),
)


@dataclass(frozen=True, slots=True)
class Outline:
    """`pointers`: RFC 6901 pointer → JSON type, in the reply's order, outer ones first; "" is the whole reply.

    `odd_names`: members that are left out as their names may be values themselves. `is_cut`: there is more than fits.
    """

    pointers: dict[str, str]
    odd_names: int = 0
    is_cut: bool = False


def outline_of(body: bytes, is_plain: Callable[[str], object]) -> Outline:
    """The shape of a JSON reply; `is_plain` tells whether a member's name may be shown. Raises ValueError: not JSON.

    Of an array only the first item is looked at: the others are mostly like it.
    """
    document = jiter.from_json(body, cache_mode="none")
    pointers: dict[str, str] = {}
    odd_names, is_cut = 0, False
    waiting = deque([("", document, 0)])
    while waiting:
        pointer, value, depth = waiting.popleft()
        if len(pointers) >= POINTERS_MOST or depth > DEPTH_MOST:
            is_cut = True
            continue
        if depth or not isinstance(value, dict):
            pointers[pointer] = type_of(value)
        for name, member in _members(value):
            if is_plain(name):
                waiting.append((f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}", member, depth + 1))
            else:
                odd_names += 1
    return Outline(pointers, odd_names, is_cut)


def type_of(value: Any) -> str:
    """The JSON type in one word; an empty string is told, as no token can be in it."""
    if isinstance(value, str):
        return "string" if value else "empty string"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return "null" if value is None else "array" if isinstance(value, list) else "object"


def likely_token(outline: Outline, configured: str) -> str | None:
    """The pointer at which the token seems to be, where it is not at the configured one."""
    return _likeliest(outline, configured, _TOKEN_NAMES, ("string",))


def likely_expiry(outline: Outline, configured: str) -> str | None:
    return _likeliest(outline, configured, _EXPIRY_NAMES, ("string", "number"))


def _likeliest(outline: Outline, configured: str, names: tuple[str, ...], types: tuple[str, ...]) -> str | None:
    """The same name elsewhere goes first, then the order of `names`, then the outermost."""
    order = (_letters(configured), *names)
    found = [
        (order.index(_letters(pointer)), pointer.count("/"), pointer)
        for pointer, kind in outline.pointers.items()
        if kind in types and pointer != configured and _letters(pointer) in order
    ]
    return min(found)[2] if found else None


def _letters(pointer: str) -> str:
    return re.sub(r"[^a-z0-9]", "", pointer.rpartition("/")[2].lower())


def _members(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, list) and value:
        yield "0", value[0]
