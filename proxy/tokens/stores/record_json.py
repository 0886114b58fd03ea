"""A record as text and back, for the stores that keep it outside of the process. The text holds the token: guard it."""

import json
import math
from typing import Any

from proxy.tokens.record import Record
from proxy.tokens.sources.base import TokenFetchError
from proxy.tokens.sources.reply import check_token
from proxy.tokens.token import Token

FORMAT = 1
RECORD_MOST_BYTES = 64 * 1024
PAUSE_MOST_S = 301.0  # the longest of any rule, and a second
_PLAIN = (
    "retry_at",
    "breaker_until",
    "breaker_s",
    "generation",
    "failures",
    "refusals",
    "forced_at",
)


class UnreadableRecord(ValueError):
    """The text is no record of ours; it says why, without quoting it."""


def dump_record(record: Record) -> str:
    members: dict[str, Any] = {name: getattr(record, name) for name in _PLAIN}
    token = record.token
    if token is not None:
        members["token"] = {
            "value": token.value,
            "fetched_at": token.fetched_at,
            "lifetime_s": token.lifetime_s,
            "generation": token.generation,
            "jitter": token.jitter,
        }
    return json.dumps({"format": FORMAT, **members})


def load_record(text: str | bytes) -> Record:
    """Raises UnreadableRecord: whoever wrote it may have been cut short, be another release, or mean harm."""
    try:
        members = json.loads(text)
        if members["format"] != FORMAT:
            raise UnreadableRecord("a record of another format")
        token = members.get("token")
        return Record(
            token=None if token is None else _load_token(token),
            generation=_count(members["generation"]),
            failures=_count(members["failures"]),
            refusals=_count(members["refusals"]),
            retry_at=_number(members["retry_at"]),
            forced_at=tuple(_number(at) for at in members["forced_at"]),
            breaker_until=_number(members["breaker_until"]),
            breaker_s=_number(members["breaker_s"]),
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError, TokenFetchError):
        raise UnreadableRecord("no record") from None


def check_clock(record: Record, now: float) -> Record:
    """The record itself. Raises UnreadableRecord: it is of another clock, as no rule puts an instant so far ahead."""
    token = record.token
    pauses_end = now + PAUSE_MOST_S if token is None else max(now + PAUSE_MOST_S, token.expires_at)
    if (token is not None and token.fetched_at > now + 1) or max(record.retry_at, record.breaker_until) > pauses_end:
        raise UnreadableRecord("a record of another clock")
    return record


def _load_token(members: dict[str, Any]) -> Token:
    lifetime_s, jitter = _number(members["lifetime_s"]), _number(members["jitter"])
    fetched_at = _number(members["fetched_at"])
    if not (lifetime_s > 0 and 0 <= jitter < 1 and math.isfinite(fetched_at)):
        raise UnreadableRecord("a token without a life")
    return Token(
        check_token(members["value"], "record"),
        fetched_at=fetched_at,
        lifetime_s=lifetime_s,
        generation=_count(members["generation"]),
        jitter=jitter,
    )


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise UnreadableRecord("no number")
    return float(value)


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**53:
        raise UnreadableRecord("no count")
    return value
