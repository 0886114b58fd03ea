"""Which fields cross the proxy, in each direction; all others stay.

Lists of what may cross, not of what may not: a field that somebody invents tomorrow stays out until it is named here.
"""

import re
import time
from collections.abc import Iterable
from email.utils import parsedate_to_datetime

Fields = list[tuple[str, str]]

# Caller to upstream. Credentials, cookies, hop-by-hop fields and forwarding fields are not among them.
REQUEST_FIELDS = {
    "content-type": "the upstream may read it; the body crosses as it came",
    "openai-beta": "switches features of the OpenAI API",
    "idempotency-key": "a caller's own retry must stay recognisable",
    "traceparent": "W3C trace context",
    "tracestate": "W3C trace context",
}

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


def request_fields(fields: Iterable[tuple[str, str]]) -> Fields:
    """The caller's fields that go to the upstream."""
    return [(name, value) for name, value in fields if name.lower() in REQUEST_FIELDS and _ASCII_VALUE.fullmatch(value)]


def answer_fields(fields: Iterable[tuple[str, str]]) -> Fields:
    """The upstream's fields that go to the caller."""
    kept: Fields = []
    for name, value in fields:
        lower = name.lower()
        if not _VALUE.fullmatch(value):
            continue
        if lower == "x-request-id":
            kept.append((UPSTREAM_REQUEST_ID, value))
        elif lower == "retry-after" and not is_sane_retry_after(value):
            continue
        elif lower in ANSWER_FIELDS or lower.startswith(ANSWER_PREFIXES):
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
