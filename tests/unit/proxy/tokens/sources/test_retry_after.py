import time
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.tokens.sources.retry_after import parse_retry_after


@pytest.mark.parametrize(
    ("value", "expected_s"),
    [
        pytest.param("0", 0.0, id="zero"),
        pytest.param("120", 120.0, id="seconds"),
        pytest.param(" 120 ", 120.0, id="blanks-around"),
        pytest.param("000120", 120.0, id="leading-zeros"),
        pytest.param("9" * 12, 999_999_999_999.0, id="twelve-digits"),
        pytest.param("9" * 13, None, id="thirteen-digits"),
        pytest.param("9" * 100_000, None, id="a-hundred-thousand-digits"),
        pytest.param(None, None, id="absent"),
        pytest.param("", None, id="empty"),
        pytest.param("-1", None, id="negative"),
        pytest.param("1.5", None, id="decimal"),
        pytest.param("1e9", None, id="exponent"),
        pytest.param("٣", None, id="digit-beyond-ascii"),
        pytest.param("soon", None, id="words"),
        pytest.param("Fri, 99 Nov 2025 10:00:00 GMT", None, id="no-such-day"),
        pytest.param("Fri, 14 Nov 2025 10:00:00 GMT", 0.0, id="date-gone-by"),
    ],
)
def test_seconds_are_read_and_junk_is_none(value: str | None, expected_s: float | None) -> None:
    assert parse_retry_after(value) == expected_s


@pytest.mark.parametrize("ahead_s", [30, 3600, 10**9])
def test_date_is_the_time_until_then(ahead_s: int) -> None:
    parsed = parse_retry_after(formatdate(time.time() + ahead_s, usegmt=True))
    assert parsed is not None
    assert ahead_s - 10 < parsed <= ahead_s


@pytest.mark.usefixtures("far_from_utc")
def test_date_without_a_zone_is_in_utc() -> None:
    parsed = parse_retry_after(time.asctime(time.gmtime(time.time() + 3600)))
    assert parsed is not None
    assert 3590 < parsed <= 3600


@given(value=st.text(max_size=60) | st.from_regex(r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{1,6} \d\d:\d\d:\d\d .{1,5}"))
def test_any_text_is_a_time_from_zero_on_or_none(value: str) -> None:
    parsed = parse_retry_after(value)
    assert parsed is None or 0 <= parsed < float("inf")
