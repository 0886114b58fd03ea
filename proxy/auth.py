"""Client keys: from what a caller sent to a Caller, or an error that tells nothing.

Knows nothing of tokens or upstreams: the caller's credential and the upstream's never meet.
"""

import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256

from proxy.errors import InvalidClientKey, InvalidRequest


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: a client key's label and what it may do."""

    label: str
    models: tuple[str, ...] = ("*",)
    expires_at: datetime | None = None
    requests_per_minute: int | None = None
    max_concurrent: int | None = None
    admin: bool = False


ANYONE = Caller(label="anyone", admin=True)


def _utc_now() -> datetime:
    return datetime.now(UTC)


class ClientKeys:
    """The keys that open the proxy, by their sha256; the keys themselves are known to their owners only."""

    def __init__(self, keys: Sequence[tuple[str, Caller]], *, now: Callable[[], datetime] = _utc_now) -> None:
        """`keys`: (hex sha256, caller). None at all: everyone is let in, for a server bound to loopback."""
        self._keys = [(bytes.fromhex(digest), caller) for digest, caller in keys]
        self._now = now

    def authenticate(self, authorization: str | None, api_key: str | None) -> Caller:
        """The caller of a request by its `Authorization` and `api-key` fields.

        Raises InvalidRequest: more than one key. InvalidClientKey: none, an unknown or an expired one; the same text
        for all.
        """
        key = _presented_key(authorization, api_key)
        if not self._keys:
            return ANYONE
        caller = self._find(key) if key else None
        if caller is None or (caller.expires_at is not None and caller.expires_at <= self._now()):
            raise InvalidClientKey
        return caller

    def _find(self, key: str) -> Caller | None:
        # Every entry is compared, in constant time each: how long it takes tells nothing about how near a guess was.
        digest = sha256(key.encode("utf-8", "surrogateescape")).digest()
        found = None
        for expected, caller in self._keys:
            if hmac.compare_digest(expected, digest):
                found = caller
        return found


_BLANKS = " \t"  # RFC 9110 §5.6.3; strip() alone would take the blanks of Unicode too, which are bytes of a key


def _presented_key(authorization: str | None, api_key: str | None) -> str | None:
    """The one key that was sent, or None. gunicorn joins repeated fields with a comma, and no key has one."""
    for value in (authorization, api_key):
        if value is not None and "," in value:
            raise InvalidRequest("Send one API key, in one header.")
    bearer = _bearer(authorization)
    if authorization is not None and api_key is not None and bearer != api_key.strip(_BLANKS):
        raise InvalidRequest("The Authorization and api-key headers disagree.")
    return bearer if api_key is None else api_key.strip(_BLANKS)


def _bearer(authorization: str | None) -> str | None:
    """The credential of `Bearer CREDENTIAL` (RFC 6750 §2.1; the scheme's case does not matter)."""
    if authorization is None:
        return None
    scheme, _, credential = authorization.strip(_BLANKS).partition(" ")
    return credential.strip(_BLANKS) or None if scheme.lower() == "bearer" else None
