import base64
import json

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.tokens.sources.base import Grant, TokenFetchError
from proxy.tokens.sources.endpoint import Reply
from proxy.tokens.sources.reply import (
    ReplyShape,
    check_token,
    has_value,
    read_grant,
    read_local_grant,
    read_text_grant,
)

_DATE = "Fri, 14 Nov 2025 10:00:00 GMT"
_DATE_UNIX = 1_763_114_400
_TEN_YEARS_S = 315_576_000.0


def _reply(document: object, **fields: str) -> Reply:
    return Reply(200, httpx.Headers(fields), json.dumps(document).encode())


def _lifetime_s(document: object, shape: ReplyShape, **fields: str) -> float:
    return read_grant(_reply(document, **fields), shape).lifetime_s


def _jwt(claims: object) -> str:
    parts = [json.dumps({"alg": "none"}), claims if isinstance(claims, str) else json.dumps(claims), "signature"]
    return ".".join(base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in parts)


@pytest.mark.parametrize(
    ("pointer", "document"),
    [
        pytest.param("/token", {"token": "t"}, id="member"),
        pytest.param("/data/access/token", {"data": {"access": {"token": "t"}}}, id="nested"),
        pytest.param("/tokens/1/value", {"tokens": [{}, {"value": "t"}]}, id="item-of-a-list"),
        pytest.param("/a~1b", {"a/b": "t"}, id="slash"),
        pytest.param("/a~0b", {"a~b": "t"}, id="tilde"),
        pytest.param("/a~01b", {"a~1b": "t"}, id="tilde-and-digit"),
        pytest.param("/", {"": "t"}, id="empty-name"),
        pytest.param("/0", {"0": "t"}, id="digit-as-a-name"),
        pytest.param("", "t", id="whole-document"),
    ],
)
def test_token_is_found_by_its_pointer(pointer: str, document: object) -> None:
    assert read_grant(_reply(document), ReplyShape(token=pointer)) == Grant("t", 300.0)


@pytest.mark.parametrize(
    ("pointer", "document"),
    [
        pytest.param("/tokens/1", {"tokens": ["t"]}, id="behind-the-list"),
        pytest.param("/tokens/-", {"tokens": ["t"]}, id="no-item"),
        pytest.param("/tokens/-1", {"tokens": ["t"]}, id="negative-item"),
        pytest.param("/tokens/\N{ARABIC-INDIC DIGIT ZERO}", {"tokens": ["t"]}, id="digit-beyond-ascii"),
        pytest.param("/token/0", {"token": "t"}, id="within-a-string"),
        pytest.param("/tokens/00", {"tokens": ["t"]}, id="item-with-a-leading-zero"),
        pytest.param("/tokens/01", {"tokens": ["s", "t"]}, id="second-item-with-a-leading-zero"),
        pytest.param("/tokens/" + "1" * 5000, {"tokens": ["t"]}, id="item-of-5000-digits"),
        pytest.param("/token/a", {"token": None}, id="within-null"),
        pytest.param("/Token", {"token": "t"}, id="another-case"),
    ],
)
def test_pointer_that_leads_nowhere_finds_no_token(pointer: str, document: object) -> None:
    with pytest.raises(TokenFetchError, match=f"no token at {pointer}:"):
        read_grant(_reply(document), ReplyShape(token=pointer))


@pytest.mark.parametrize(
    ("expires_at", "lifetime_s"),
    [
        pytest.param(_DATE_UNIX + 300, 300.0, id="unix-seconds"),
        pytest.param((_DATE_UNIX + 300) * 1000, 300.0, id="unix-milliseconds"),
        pytest.param(str(_DATE_UNIX + 300), 300.0, id="unix-seconds-as-string"),
        pytest.param(_DATE_UNIX + 0.5, 0.5, id="half-a-second"),
        pytest.param("2025-11-14T10:05:00Z", 300.0, id="rfc-3339-utc"),
        pytest.param("2025-11-14T11:05:00.500+01:00", 300.5, id="rfc-3339-with-offset"),
        pytest.param("2025-11-14 10:05:00+00:00", 300.0, id="rfc-3339-with-a-space"),
        pytest.param("2025-11-14t10:05:00z", 300.0, id="rfc-3339-in-lower-case"),
        pytest.param(_DATE_UNIX + _TEN_YEARS_S, _TEN_YEARS_S, id="ten-years"),
    ],
)
def test_absolute_expiry_counts_from_the_date_of_the_reply(expires_at: object, lifetime_s: float) -> None:
    shape = ReplyShape(expires_at="/expires")
    assert _lifetime_s({"access_token": "t", "expires": expires_at}, shape, Date=_DATE) == lifetime_s


@pytest.mark.parametrize(
    ("expires_at", "date", "reason"),
    [
        pytest.param(_DATE_UNIX, _DATE, "not above 0", id="at-the-date"),
        pytest.param(_DATE_UNIX - 1, _DATE, "not above 0", id="before-the-date"),
        pytest.param("0001-01-01T00:00:00+23:59", _DATE, "not above 0", id="first-year"),
        pytest.param(float("nan"), _DATE, "not above 0", id="nan"),
        pytest.param(float("inf"), _DATE, "not above 0", id="infinity"),
        pytest.param(10**400, _DATE, "not above 0", id="401-digits"),
        pytest.param((_DATE_UNIX + 300) * 10**6, _DATE, "more than 10 years ahead", id="unix-microseconds"),
        pytest.param(_DATE_UNIX + _TEN_YEARS_S + 1, _DATE, "more than 10 years ahead", id="ten-years-and-a-second"),
        pytest.param("9999-12-31T23:59:59Z", _DATE, "more than 10 years ahead", id="last-year"),
        pytest.param("2025-11-14T10:05:00", _DATE, "has no zone", id="no-zone"),
        pytest.param("tomorrow", _DATE, "neither a number nor an RFC 3339 time", id="words"),
        pytest.param("", _DATE, "neither a number nor an RFC 3339 time", id="empty"),
        pytest.param(True, _DATE, "not a number", id="bool"),
        pytest.param([_DATE_UNIX], _DATE, "not a number", id="list"),
        pytest.param(_DATE_UNIX + 300, None, "needs the reply's Date", id="date-absent"),
        pytest.param(_DATE_UNIX + 300, "s3cret-mark", "needs the reply's Date", id="date-junk"),
        pytest.param(_DATE_UNIX + 300, "Fri, 99 Nov 2025 10:00:00 GMT", "needs the reply's Date", id="date-of-no-day"),
        pytest.param(
            _DATE_UNIX + 300, "Fri Nov 14 10:00:00 99999999999", "needs the reply's Date", id="date-of-no-year"
        ),
    ],
)
def test_absolute_expiry_that_is_no_instant_ahead_is_a_failed_fetch(
    mark: str, expires_at: object, date: str | None, reason: str
) -> None:
    fields = {} if date is None else {"Date": date}
    with pytest.raises(TokenFetchError, match=reason) as caught:
        _lifetime_s({"access_token": mark, "expires": expires_at}, ReplyShape(expires_at="/expires"), **fields)
    assert mark not in str(caught.value)


@pytest.mark.usefixtures("far_from_utc")
def test_date_of_the_reply_without_a_zone_is_in_utc() -> None:
    document = {"access_token": "t", "expires": _DATE_UNIX + 300}
    assert _lifetime_s(document, ReplyShape(expires_at="/expires"), Date="Fri Nov 14 10:00:00 2025") == 300.0


def test_absolute_expiry_that_is_absent_needs_no_date() -> None:
    assert _lifetime_s({"access_token": "t"}, ReplyShape(expires_at="/expires", default_lifetime_s=60.0)) == 60.0


@pytest.mark.parametrize(
    ("members", "shape", "lifetime_s"),
    [
        pytest.param({"expires_in": 100}, ReplyShape(), 100.0, id="expires-in-before-claims"),
        pytest.param({}, ReplyShape(), 200.0, id="claims-before-default"),
        pytest.param({"expires_in": 100}, ReplyShape(expires_in=None), 200.0, id="no-pointer"),
        pytest.param({"ttl": "100"}, ReplyShape(expires_in="/ttl"), 100.0, id="pointer-of-another-name"),
    ],
)
def test_lifetime_comes_from_the_reply_else_from_the_tokens_claims(members, shape, lifetime_s: float) -> None:
    token = _jwt({"iat": 1_000, "exp": 1_200})
    assert _lifetime_s({"access_token": token, **members}, shape) == lifetime_s


@pytest.mark.parametrize(
    "token",
    [
        pytest.param("opaque", id="no-jwt"),
        pytest.param("a.b.c", id="three-parts-of-something-else"),
        pytest.param("a.b.c.d.e", id="encrypted-jwt"),
        pytest.param(_jwt({"exp": 1_200}), id="no-iat"),
        pytest.param(_jwt({"iat": 1_000}), id="no-exp"),
        pytest.param(_jwt({"iat": 1_200, "exp": 1_200}), id="no-life"),
        pytest.param(_jwt({"iat": 1_200, "exp": 1_000}), id="exp-before-iat"),
        pytest.param(_jwt({"iat": None, "exp": []}), id="claims-of-another-kind"),
        pytest.param(_jwt({"iat": 0, "exp": float("inf")}), id="infinite"),
        pytest.param(_jwt({"iat": 0, "exp": float("nan")}), id="nan"),
        pytest.param(_jwt({"iat": 0, "exp": 10**400}), id="401-digits"),
        pytest.param(_jwt('{"iat": 0, "exp": ' + "1" * 5000 + "}"), id="5000-digits"),
        pytest.param(_jwt([1]), id="claims-are-a-list"),
        pytest.param(_jwt("[" * 5000), id="claims-nested-too-deep"),
        pytest.param(_jwt("{"), id="claims-are-no-json"),
    ],
)
def test_token_whose_claims_tell_no_life_lives_for_the_default(token: str) -> None:
    assert _lifetime_s({"access_token": token}, ReplyShape(default_lifetime_s=77.0)) == 77.0


@given(value=st.text(max_size=40) | st.from_regex(r"[A-Za-z0-9\-._~+/]{1,20}={0,2}.?", fullmatch=True))
def test_checked_token_is_printable_ascii_without_blanks(value: str) -> None:
    try:
        checked = check_token(value, "here")
    except TokenFetchError:
        return
    assert checked == value
    assert value.isascii()
    assert value.isprintable()
    assert not set(value) & set(' ",;\\')


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("token-1"),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.sampled_from(["access_token", "expires_in", "token_type", "expires"]), inner)
    ),
    max_leaves=8,
)


@given(
    document=_JSON,
    date=st.none() | st.text(st.characters(codec="ascii")),
    shape=st.sampled_from([ReplyShape(), ReplyShape(expires_at="/expires"), ReplyShape(token="/0", expires_in="/1")]),
)
def test_any_reply_is_a_usable_grant_or_a_failed_fetch(document: object, date: str | None, shape: ReplyShape) -> None:
    try:
        grant = read_grant(_reply(document, **({} if date is None else {"Date": date})), shape)
    except TokenFetchError:
        return
    assert grant.access_token
    assert 0 < grant.lifetime_s < float("inf")


@pytest.mark.parametrize(
    ("document", "shape", "lifetime_s"),
    [
        pytest.param(
            {"access_token": "t", "expires": _DATE_UNIX + 300}, ReplyShape(expires_at="/expires"), 300.0, id="expiry"
        ),
        pytest.param({"access_token": "t", "expires_in": 100}, ReplyShape(), 100.0, id="lifetime"),
        pytest.param({"access_token": "t"}, ReplyShape(default_lifetime_s=77.0), 77.0, id="default"),
        pytest.param(
            {"access_token": _jwt({"iat": _DATE_UNIX - 100, "exp": _DATE_UNIX + 200})},
            ReplyShape(),
            200.0,
            id="older-jwt",
        ),
        pytest.param({"access_token": _jwt({"exp": _DATE_UNIX + 200})}, ReplyShape(), 200.0, id="jwt-without-iat"),
    ],
)
def test_local_reply_counts_from_the_clock_of_this_host(document: object, shape: ReplyShape, lifetime_s: float) -> None:
    assert read_local_grant(document, shape, now=_DATE_UNIX).lifetime_s == lifetime_s


def test_local_reply_with_a_jwt_that_has_run_out_is_a_failed_fetch() -> None:
    document = {"access_token": _jwt({"iat": _DATE_UNIX - 300, "exp": _DATE_UNIX - 1})}
    with pytest.raises(TokenFetchError, match="the token ran out 1 s ago"):
        read_local_grant(document, ReplyShape(), now=_DATE_UNIX)


def test_printed_life_of_a_local_reply_goes_before_the_claims() -> None:
    document = {"access_token": _jwt({"iat": _DATE_UNIX - 300, "exp": _DATE_UNIX - 1}), "expires_in": 100}
    assert read_local_grant(document, ReplyShape(), now=_DATE_UNIX).lifetime_s == 100.0


@given(
    document=_JSON,
    now=st.floats(allow_nan=False, allow_infinity=False),
    shape=st.sampled_from([ReplyShape(), ReplyShape(expires_at="/expires"), ReplyShape(token="", expires_in=None)]),
)
def test_any_local_reply_is_a_usable_grant_or_a_failed_fetch(document: object, now: float, shape: ReplyShape) -> None:
    try:
        grant = read_local_grant(document, shape, now=now)
    except TokenFetchError:
        return
    assert grant.access_token
    assert 0 < grant.lifetime_s < float("inf")


@given(text=st.binary(max_size=60) | st.from_regex(rb"[A-Za-z0-9\-._~+/]{1,20}={0,2}\r?\n?", fullmatch=True))
def test_any_text_is_a_usable_token_without_its_line_break_or_a_failed_fetch(text: bytes) -> None:
    try:
        grant = read_text_grant(text, "here", now=0.0, default_lifetime_s=77.0)
    except TokenFetchError:
        return
    assert text in {grant.access_token.encode() + line_break for line_break in (b"", b"\n", b"\r\n", b"\r")}
    assert check_token(grant.access_token, "here")


@given(body=st.binary(max_size=60))
def test_any_bytes_are_a_usable_grant_or_a_failed_fetch(body: bytes) -> None:
    with pytest.raises(TokenFetchError):
        read_grant(Reply(200, httpx.Headers(), body), ReplyShape())


@pytest.mark.parametrize(
    ("pointer", "expected"),
    [
        ("/a", True),
        ("/b/0/c", True),
        ("/no", False),
        ("/b/1", False),
        ("/b/0/c/d", False),
        ("/null", False),
        ("", True),
    ],
)
def test_pointer_names_a_value_or_nothing(pointer: str, expected: bool) -> None:
    assert has_value({"a": False, "b": [{"c": 0}], "null": None}, pointer) == expected
