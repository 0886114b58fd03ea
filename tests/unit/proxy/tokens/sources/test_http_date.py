import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.tokens.sources.http_date import parse_http_date

_MOMENT = 784_111_777.0  # the one of RFC 9110 §5.6.7


@pytest.mark.usefixtures("far_from_utc")
@pytest.mark.parametrize(
    "text",
    [
        pytest.param("Sun, 06 Nov 1994 08:49:37 GMT", id="imf-fixdate"),
        pytest.param("Sunday, 06-Nov-94 08:49:37 GMT", id="rfc-850"),
        pytest.param("Sun Nov  6 08:49:37 1994", id="asctime"),
        pytest.param("Sun, 06 Nov 1994 08:49:37", id="no-zone"),
        pytest.param("Sun, 06 Nov 1994 08:49:37 -0000", id="unknown-zone"),
        pytest.param("Sun, 06 Nov 1994 09:49:37 +0100", id="another-zone"),
    ],
)
def test_each_form_is_the_same_moment_wherever_this_host_is(text: str) -> None:
    assert parse_http_date(text) == _MOMENT


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("tomorrow", id="words"),
        pytest.param("784111777", id="seconds"),
        pytest.param("Sun, 99 Nov 1994 08:49:37 GMT", id="no-such-day"),
        pytest.param("Sun Nov  6 08:49:37 99999999999", id="year-out-of-range"),
        pytest.param("Sun, 99999999999 Nov 1994 08:49:37 GMT", id="day-out-of-range"),
        pytest.param(f"Sun, 06 Nov {'9' * 5000} 08:49:37 GMT", id="year-of-5000-digits"),
        pytest.param("Sun, 06 Nov 1994 08:49:37 +9999999999", id="zone-out-of-range"),
    ],
)
def test_what_is_no_date_is_none(text: str) -> None:
    assert parse_http_date(text) is None


@given(
    text=st.text(max_size=60)
    | st.from_regex(r"[A-Z][a-z]{2}, \d{1,12} [A-Z][a-z]{2} \d{1,12} \d{1,9}:\d\d:\d\d .{1,9}")
    | st.from_regex(r"(Sun|Mon) (Nov|Dec) {1,2}\d{1,11} \d\d:\d\d:\d\d \d{1,12}")
)
def test_any_text_is_a_moment_or_none(text: str) -> None:
    moment = parse_http_date(text)
    assert moment is None or abs(moment) < 1e12
