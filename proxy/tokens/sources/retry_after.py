"""`Retry-After` of RFC 9110 §10.2.3: seconds or a date."""

import time
from email.utils import parsedate_to_datetime


def parse_retry_after(value: str | None) -> float | None:
    """Seconds to wait, or None where the field is absent or is neither a number of seconds nor a date."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        # More than a dozen digits is no instant that anyone meant, and float() would take a while over a million.
        return float(text) if len(text) <= 12 else None
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None
