"""The dates of HTTP fields, such as `Date` and `Retry-After`; used where a reply is read."""

from datetime import UTC
from email.utils import parsedate_to_datetime


def parse_http_date(text: str) -> float | None:
    """Unix seconds, or None where the text is no date. Each of the three forms of RFC 9110 §5.6.7 counts.

    A date without a zone is in UTC: the rule for asctime's form, which has none.
    """
    try:
        moment = parsedate_to_datetime(text)
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
