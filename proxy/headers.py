"""Which fields cross the proxy, in each direction; all others stay.

Lists of what may cross, not of what may not: a field that somebody invents tomorrow stays out until it is named here.
"""

import re
import time
from collections.abc import Iterable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

Fields = list[tuple[str, str]]

# Caller to upstream, beside the body's own fields. Credentials, cookies, hop-by-hop and forwarding fields are not here.
REQUEST_FIELDS = {
    "OpenAI-Beta": "switches features of the OpenAI API",
    "Idempotency-Key": "a caller's own retry must stay recognisable",
    "traceparent": "W3C trace context",
    "tracestate": "W3C trace context",
}
_REQUEST_KEYS = [(name, f"HTTP_{name.upper().replace('-', '_')}") for name in REQUEST_FIELDS]

# Upstream to caller, by name or by prefix.
ANSWER_FIELDS = {
    "content-type": "says what the body is",
    "content-disposition": "a file's name",
    "retry-after": "RFC 9110 §10.2.3; only when it is sane",
}
ANSWER_PREFIXES = ("x-ratelimit-", "openai-", "x-litellm-")
# The upstream's id keeps to a name of its own, so that it cannot pass for ours.
UPSTREAM_REQUEST_ID = "x-upstream-request-id"

RETRY_AFTER_MOST_S = 86400
# RFC 9110 §5.5: visible characters, blanks and tabs; what else came is nothing to send on. Outwards Latin-1 is left.
_ASCII_VALUE = re.compile(r"[\t\x20-\x7e]*")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


def request_fields(environ: Mapping[str, Any]) -> Fields:
    """The caller's fields that go to the upstream, out of a WSGI environ (PEP 3333)."""
    given = [(name, environ[key]) for name, key in _REQUEST_KEYS if key in environ]
    return [(name, value) for name, value in given if _ASCII_VALUE.fullmatch(value)]


def answer_fields(fields: Iterable[tuple[str, str]]) -> Fields:
    """The upstream's fields that go to the caller."""
    kept: Fields = []
    for name, value in fields:
        lower = name.lower()
        if lower == "x-request-id":
            name = UPSTREAM_REQUEST_ID
        elif lower not in ANSWER_FIELDS and not lower.startswith(ANSWER_PREFIXES):
            continue
        if _VALUE.fullmatch(value) and (lower != "retry-after" or is_sane_retry_after(value)):
            kept.append((name, value))
    return kept


def is_sane_retry_after(value: str) -> bool:
    """Whether it is a number of seconds or a date, up to a day ahead; clients sleep for what they read here."""
    text = value.strip()
    if text.isascii() and text.isdigit():
        return len(text) <= 9 and int(text) <= RETRY_AFTER_MOST_S
    try:
        moment = parsedate_to_datetime(text)
        return moment.tzinfo is not None and moment.timestamp() - time.time() <= RETRY_AFTER_MOST_S
    except (TypeError, ValueError, OverflowError):
        return False
