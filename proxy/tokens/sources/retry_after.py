"""`Retry-After` of RFC 9110 §10.2.3: seconds or a date."""

import time

from proxy.tokens.sources.http_date import parse_http_date


def parse_retry_after(value: str | None) -> float | None:
    """Seconds to wait, or None where the field is absent or is neither a number of seconds nor a date."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        # More than a dozen digits is no instant that anyone meant, and float() would take a while over a million.
        return float(text) if len(text) <= 12 else None
    moment = parse_http_date(text)
    return None if moment is None else max(0.0, moment - time.time())
