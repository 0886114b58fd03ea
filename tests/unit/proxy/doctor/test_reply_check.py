import json
import time
from email.utils import formatdate
from typing import Any

import httpx
import pytest

from proxy.doctor.fetch import Attempt
from proxy.doctor.foreign_text import ForeignText
from proxy.doctor.reply_check import report_reply
from proxy.doctor.report import Report
from proxy.tokens.sources.base import TokenFetchError
from proxy.tokens.sources.endpoint import Reply
from proxy.tokens.sources.reply import ReplyShape, read_grant

_NOW = 1_800_000_000.0
_RFC_6749 = ReplyShape()


class Check:
    """Feeds a reply to the step as a fetch would."""

    def __init__(self, report: Report, foreign: ForeignText) -> None:
        self._report = report
        self._foreign = foreign

    def __call__(
        self,
        body: object,
        status: int = 200,
        shape: ReplyShape = _RFC_6749,
        sends_instants: bool = False,
        **fields: Any,
    ) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        names = {name.replace("_", "-"): value for name, value in fields.items()}
        reply = Reply(status, httpx.Headers({"Content-Type": "application/json", **names}), raw)
        attempt, error = Attempt(), None
        attempt.observe(reply)
        attempt.replied_at, attempt.took_s = _NOW, 0.012
        try:
            if status != 200:
                raise TokenFetchError(f"token endpoint: status {status}")
            attempt.grant = read_grant(reply, shape)
        except TokenFetchError as failure:
            error = failure
        report_reply(self._report, attempt, error, shape, self._foreign, sends_instants=sends_instants)


@pytest.fixture
def check(report: Report, foreign: ForeignText) -> Check:
    return Check(report, foreign)


def test_good_reply_is_told_by_its_shape_alone(check: Check, lines: list[str], mark: str) -> None:
    check({"access_token": mark, "expires_in": 300, "scope": mark}, Date=formatdate(_NOW, usegmt=True))
    assert lines == [
        "ok    request: 200 in 12 ms, application/json, 74 bytes",
        "ok    reply: /access_token string, /expires_in number, /scope string",
        "ok    token: at /access_token",
        "ok    clock: the issuer's and this host's agree to the second",
    ]


def test_no_reply_is_told_with_its_error(report: Report, foreign: ForeignText, lines: list[str]) -> None:
    attempt = Attempt()
    attempt.took_s = 5.0
    error = TokenFetchError("token endpoint: no answer within the deadline")
    assert report_reply(report, attempt, error, _RFC_6749, foreign, sends_instants=False) is None
    assert len(lines) == 1
    assert lines[0].startswith("FAIL  request: token endpoint: no answer within the deadline (5000 ms)")


def test_refusal_is_told_and_its_body_is_not(check: Check, lines: list[str], mark: str) -> None:
    check({"error": "invalid_client", "error_description": mark}, 401)
    assert lines[0].startswith("FAIL  request: 401 in 12 ms, application/json, ")
    assert "invalid_client" in lines[0]
    assert not any(line.partition(":")[0].endswith("reply") for line in lines)


def test_html_is_told(check: Check, lines: list[str]) -> None:
    check(b"<html>s3cret-mark", Content_Type="text/html")
    assert lines[:2] == [
        "ok    request: 200 in 12 ms, text/html, 17 bytes",
        "FAIL  reply: it is no JSON: it is an HTML page, such as that of a login or of a proxy on the way; see the URL",
    ]


@pytest.mark.parametrize(
    ("document", "words"),
    [
        pytest.param(
            {"data": {"access_token": "t"}}, "a string is at /data/access_token: token_pointer", id="elsewhere"
        ),
        pytest.param({"nothing": 1}, "no token at /access_token: a non-empty string is expected there", id="nowhere"),
        pytest.param({"access_token": ""}, "a non-empty string is expected", id="empty"),
        pytest.param({"access_token": "s3cret-mark\r\n"}, "characters that RFC 6750 does not allow", id="line-break"),
        pytest.param({"access_token": "t", "expires_in": 0}, "/expires_in is not above 0", id="no-life"),
        pytest.param({"access_token": "t", "token_type": "mac"}, "token_type is not", id="mac"),
        pytest.param({"error": "invalid_client"}, "the reply is an error: invalid_client", id="error-with-200"),
    ],
)
def test_lack_of_a_token_is_told_with_its_cause(check: Check, lines: list[str], document: Any, words: str) -> None:
    check(document)
    assert lines[2].startswith("FAIL  token: ")
    assert words in lines[2]


def test_guess_is_not_made_where_the_config_found_a_string(check: Check, lines: list[str]) -> None:
    check({"access_token": "t", "expires_in": 0, "data": {"access_token": "u"}})
    assert "/data/access_token: token_pointer" not in lines[2]


def test_odd_names_are_counted(check: Check, lines: list[str], mark: str) -> None:
    check({"access_token": "t", f"{mark}-token": {"a": 1}, "n" * 65: 1})
    assert lines[1] == "ok    reply: /access_token string; 2 members with odd names"


@pytest.mark.parametrize(
    ("shape", "skew_s", "expected"),
    [
        pytest.param(_RFC_6749, 1, "ok    clock: the issuer's and this host's agree", id="no-skew"),
        pytest.param(_RFC_6749, 37, "ok    clock: the issuer's is 37 s ahead of this host's", id="no-matter"),
        pytest.param(_RFC_6749, -3600, "ok    clock: the issuer's is 60 min behind this host's", id="behind"),
        pytest.param(
            ReplyShape(expires_at="/exp"),
            5,
            "ok    clock: the issuer's is 5 s ahead",
            id="absolute-expiry-at-the-limit",
        ),
        pytest.param(
            ReplyShape(expires_at="/exp"), 6, "warn  clock: the issuer's is 6 s ahead of", id="absolute-expiry-above-it"
        ),
    ],
)
def test_clocks_are_compared_by_the_date_of_the_reply(
    check: Check, lines: list[str], shape: ReplyShape, skew_s: float, expected: str
) -> None:
    check({"access_token": "t", "exp": _NOW + 300}, shape=shape, Date=formatdate(_NOW + skew_s, usegmt=True))
    assert lines[-1].startswith(expected)


def test_skew_matters_where_the_request_is_signed_with_its_time(check: Check, lines: list[str]) -> None:
    check({"error": "invalid_client"}, 401, sends_instants=True, Date=formatdate(_NOW + 60, usegmt=True))
    assert lines[-1].startswith("warn  clock: the issuer's is 60 s ahead of this host's")


@pytest.mark.parametrize("date", ["", "yesterday", "Fri, 99 Nov 9999 99:99:99 GMT"])
def test_reply_without_a_date_tells_nothing_of_the_clock(check: Check, lines: list[str], date: str) -> None:
    check({"access_token": "t"}, Date=date)
    assert lines[-1].startswith("skip  clock: ")


def test_clock_of_an_attempt_is_this_hosts() -> None:
    attempt = Attempt()
    attempt.observe(Reply(200, httpx.Headers(), b""))
    assert abs(attempt.replied_at - time.time()) < 60
