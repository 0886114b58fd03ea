from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.headers import (
    ANSWER_FIELDS,
    ANSWER_PREFIXES,
    REQUEST_FIELDS,
    UPSTREAM_REQUEST_ID,
    answer_fields,
    is_sane_retry_after,
    request_fields,
)

_CROSS = ["OpenAI-Beta", "Idempotency-Key", "traceparent", "tracestate"]
_STAY = [
    # credentials and what may carry one
    "Authorization", "api-key", "X-Api-Key", "Cookie", "Proxy-Authorization", "OpenAI-Organization", "OpenAI-Project",
    # RFC 9110 §7.6.1: hop-by-hop
    "Connection", "Keep-Alive", "TE", "Trailer", "Transfer-Encoding", "Upgrade", "Proxy-Connection",
    # of this connection or body
    "Host", "Content-Length", "Content-Encoding", "Expect", "Accept", "Accept-Encoding", "User-Agent", "Range",
    # forwarding, and tricks with it
    "X-Forwarded-For", "X_Forwarded_For", "Forwarded", "X-Real-IP", "X-Original-URL", "Via", "Origin", "Referer",
    "X-Request-Id", "X-Stainless-Lang", "X-Unknown",
]  # fmt: skip


def environ_of(fields: list[tuple[str, str]]) -> dict[str, str]:
    """The fields as a WSGI server hands them on (PEP 3333)."""
    keys = {"content-type": "CONTENT_TYPE", "content-length": "CONTENT_LENGTH"}
    return {keys.get(name.lower(), f"HTTP_{name.upper().replace('-', '_')}"): value for name, value in fields}


@pytest.mark.parametrize("name", _CROSS)
def test_field_goes_to_the_upstream_as_it_came(name: str) -> None:
    assert request_fields(environ_of([(name, " v ")])) == [(name, " v ")]


@pytest.mark.parametrize("name", [*_STAY, "Content-Type"])
def test_field_does_not_go_to_the_upstream(name: str) -> None:
    assert request_fields(environ_of([(name, "v")])) == []


@pytest.mark.parametrize(
    "name",
    [
        "Content-Type",
        "CONTENT-DISPOSITION",
        "X-RateLimit-Remaining-Tokens",
        "x-ratelimit-limit-requests",
        "openai-processing-ms",
        "OpenAI-Version",
        "x-litellm-model-id",
    ],
)
def test_field_goes_to_the_caller_as_it_came(name: str) -> None:
    assert answer_fields([(name, "v")]) == [(name, "v")]


@pytest.mark.parametrize(
    "name",
    [
        # RFC 9110 §7.6.1: hop-by-hop
        "Connection", "Keep-Alive", "Transfer-Encoding", "Trailer", "Upgrade", "TE", "Proxy-Authenticate",
        # credentials and challenges
        "Set-Cookie", "Cookie", "WWW-Authenticate", "Authorization", "Authentication-Info",
        # of the upstream's connection or of the body on it
        "Content-Length", "Content-Encoding", "Server", "Date", "Location", "Alt-Svc", "Strict-Transport-Security",
        "Access-Control-Allow-Origin", "Cache-Control", "X-Accel-Redirect", "X-Unknown", "X-RateLimit", "Refresh",
        UPSTREAM_REQUEST_ID,
    ],
)  # fmt: skip
def test_field_does_not_go_to_the_caller(name: str) -> None:
    assert answer_fields([(name, "1"), (name.lower(), "1"), (name.upper(), "1")]) == []


@pytest.mark.parametrize("name", ["x-request-id", "X-Request-Id", "X-REQUEST-ID"])
def test_upstreams_request_id_gets_a_name_of_its_own(name: str) -> None:
    assert answer_fields([(name, "req_1")]) == [("x-upstream-request-id", "req_1")]


def test_order_and_repeated_fields_are_kept() -> None:
    fields = [("x-litellm-a", "1"), ("Server", "x"), ("openai-b", "2"), ("x-litellm-a", "3")]
    assert answer_fields(fields) == [("x-litellm-a", "1"), ("openai-b", "2"), ("x-litellm-a", "3")]


_RETRY_AFTER = [
    ("0", True),
    ("1", True),
    (" 30 ", True),
    ("86400", True),
    ("86401", False),
    ("000000001", True),
    ("0000000001", False),
    ("1e9", False),
    ("1000000000", False),
    ("9" * 5000, False),
    ("-1", False),
    ("+1", False),
    ("1.5", False),
    ("", False),
    (" ", False),
    ("soon", False),
    ("NaN", False),
    ("²", False),
    ("٣", False),
    ("Sat, 31 Jan 2026 12:00:00 GMT", True),
    (format_datetime(datetime.now(UTC) + timedelta(hours=23), usegmt=True), True),
    (format_datetime(datetime.now(UTC) + timedelta(hours=25), usegmt=True), False),
    ("Sat, 31 Jan 2026 12:00:00", False),
    ("evil; GMT", False),
]

# The same in every process that collects them, though two of them are told from now.
_RETRY_AFTER_IDS = [f"row {number}" for number in range(len(_RETRY_AFTER))]


@pytest.mark.parametrize(("value", "expected"), _RETRY_AFTER, ids=_RETRY_AFTER_IDS)
def test_retry_after_is_sane_up_to_a_day(value: str, expected: bool) -> None:
    assert is_sane_retry_after(value) is expected


@pytest.mark.parametrize(("value", "expected"), _RETRY_AFTER, ids=_RETRY_AFTER_IDS)
def test_retry_after_goes_to_the_caller_when_it_is_sane(value: str, expected: bool) -> None:
    assert answer_fields([("Retry-After", value)]) == ([("Retry-After", value)] if expected else [])


# For any fields

_NAMES = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789-_", min_size=1) | st.sampled_from([*_CROSS, *_STAY])
_FIELDS = st.lists(st.tuples(_NAMES, st.text()))


@given(_FIELDS)
def test_nothing_goes_to_the_upstream_that_is_not_listed(fields: list[tuple[str, str]]) -> None:
    environ = environ_of(fields)
    crossing = request_fields(environ)
    assert {name for name, _ in crossing} <= set(REQUEST_FIELDS)
    assert all(environ_of([field]).items() <= environ.items() and field[1].isascii() for field in crossing)


@pytest.mark.parametrize(("value", "outwards"), [("é", True), ("日本", False), ("a\nb", False), ("a\tb", True)])
def test_a_value_crosses_outwards_as_latin_1_and_inwards_as_ascii(value: str, outwards: bool) -> None:
    assert answer_fields([("openai-x", value)]) == ([("openai-x", value)] if outwards else [])
    assert bool(request_fields(environ_of([("traceparent", value)]))) == (value == "a\tb")


@given(_FIELDS)
def test_nothing_goes_to_the_caller_that_is_not_listed(fields: list[tuple[str, str]]) -> None:
    for name, value in answer_fields(fields):
        assert name == UPSTREAM_REQUEST_ID or (name, value) in fields
        listed = name.lower() in ANSWER_FIELDS or name.lower().startswith(ANSWER_PREFIXES)
        assert listed or name == UPSTREAM_REQUEST_ID


def test_every_field_that_crosses_has_its_reason() -> None:
    assert all([*REQUEST_FIELDS.values(), *ANSWER_FIELDS.values()])
    assert all(name == name.lower() for name in [*ANSWER_FIELDS, *ANSWER_PREFIXES])
