import json
import math
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from proxy.doctor.life_check import report_life
from proxy.doctor.reply_shape import outline_of
from proxy.doctor.report import Report
from proxy.tokens.sources.base import Grant
from proxy.tokens.sources.endpoint import Reply
from proxy.tokens.sources.reply import ReplyShape, read_grant
from tests.support.unsigned_jwt import unsigned_jwt

_RENEWED = "300 s, renewed at an age of 120 s to 150 s"


@pytest.fixture
def check(report: Report) -> Callable[..., None]:
    """The step, fed with the reply of a token endpoint."""

    def check(document: dict[str, Any], shape: ReplyShape | None = None) -> None:
        shape = shape or ReplyShape()
        body = json.dumps(document).encode()
        reply = Reply(200, httpx.Headers({"Date": "Fri, 15 Jan 2027 08:00:00 GMT"}), body)
        report_life(report, read_grant(reply, shape), reply, shape, outline_of(body, str.isprintable))

    return check


@pytest.mark.parametrize(
    ("document", "shape", "line"),
    [
        pytest.param(
            {"access_token": "t", "expires_in": 300},
            ReplyShape(),
            f"ok    lifetime: {_RENEWED}; by /expires_in",
            id="relative",
        ),
        pytest.param(
            {"access_token": "t", "d": {"until": "2027-01-15T08:05:00Z"}},
            ReplyShape(expires_in=None, expires_at="/d/until"),
            f"ok    lifetime: {_RENEWED}; by /d/until minus the reply's Date",
            id="absolute",
        ),
        pytest.param(
            {"access_token": "t"},
            ReplyShape(),
            f"warn  lifetime: {_RENEWED}; by default_lifetime_s, as the reply has no expiry at /expires_in",
            id="default",
        ),
        pytest.param(
            {"access_token": "t", "expires_in": None},
            ReplyShape(),
            f"warn  lifetime: {_RENEWED}; by default_lifetime_s, as the reply has no expiry at /expires_in",
            id="null-is-no-expiry",
        ),
        pytest.param(
            {"access_token": "t"},
            ReplyShape(expires_in=None),
            f"warn  lifetime: {_RENEWED}; by default_lifetime_s, as no expiry pointer is set",
            id="no-pointer",
        ),
        pytest.param(
            {"access_token": "t", "data": {"expires_in": 60}},
            ReplyShape(),
            f"warn  lifetime: {_RENEWED}; by default_lifetime_s, as the reply has no expiry at /expires_in; "
            "/data/expires_in looks like one: set expires_in_pointer or expires_at_pointer to it",
            id="elsewhere",
        ),
        pytest.param(
            {"access_token": unsigned_jwt({"iat": 100, "exp": 400})},
            ReplyShape(),
            f"ok    lifetime: {_RENEWED}; by the token's own claims, exp - iat",
            id="claims",
        ),
    ],
)
def test_life_is_told_with_where_it_comes_from(
    check: Callable[..., None], lines: list[str], document: dict[str, Any], shape: ReplyShape, line: str
) -> None:
    check(document, shape)
    assert lines[0] == line


@pytest.mark.parametrize(
    ("lifetime_s", "line"),
    [(300.0, f"ok    lifetime: {_RENEWED}"), (math.inf, "ok    lifetime: it does not expire")],
)
def test_life_of_a_token_of_this_host(report: Report, lines: list[str], lifetime_s: float, line: str) -> None:
    report_life(report, Grant("t", lifetime_s), None, None, None)
    assert lines == [line]


@pytest.mark.parametrize(
    ("claims", "lifetime_s", "expected"),
    [
        pytest.param({"iat": -10, "exp": 290}, 290, "ok    JWT: RS256, exp - iat is 300 s", id="good"),
        pytest.param({"iat": 0.5, "exp": 300}, 300, "ok    JWT: ", id="ahead-by-less-than-a-second"),
        pytest.param({"iat": 30, "exp": 330}, 300, "warn  JWT: RS256, exp - iat is 300 s; its iat lies ", id="iat"),
        pytest.param(
            {"iat": 0, "nbf": 30, "exp": 300}, 300, "warn  JWT: RS256, exp - iat is 300 s; its nbf ", id="nbf"
        ),
        pytest.param({"iat": -600, "exp": -300}, 300, "warn  JWT: RS256, exp - iat is 300 s; it ended ", id="ended"),
        pytest.param({"iat": 0, "exp": 300}, 304, "ok    JWT: ", id="told-as-long-but-for-rounding"),
        pytest.param(
            {"iat": 0, "exp": 300}, 3600, "warn  JWT: RS256, exp - iat is 300 s; it ends before", id="too-long"
        ),
        pytest.param({"sub": "s3cret-mark"}, 300, "ok    JWT: RS256, no exp - iat", id="no-times"),
    ],
)
def test_times_of_a_jwt_are_compared_with_this_hosts_clock(
    report: Report, lines: list[str], claims: dict[str, Any], lifetime_s: float, expected: str
) -> None:
    now = time.time()
    moved = {name: value if isinstance(value, str) else now + value for name, value in claims.items()}
    report_life(report, Grant(unsigned_jwt(moved), lifetime_s), None, None, None)
    assert lines[1].startswith(expected)


def test_opaque_token_has_no_line_of_its_own(check: Callable[..., None], lines: list[str]) -> None:
    check({"access_token": "t", "expires_in": 300})
    assert len(lines) == 1
