"""What is known of one request, collected on its way, and its one line in the log when the last byte is out."""

import time
from dataclasses import dataclass, field

from loguru import logger

NAME_MOST_CHARS = 100


@dataclass(slots=True)
class RequestLog:
    """One request's facts: no key, no body. `model` is the caller's text, so it is cut and quoted when written."""

    request_id: str
    method: str
    route: str
    started: float = field(default_factory=time.monotonic)
    caller: str = "-"
    model: str = "-"
    upstream: str = "-"
    status: int = 0
    outcome: str = "done"  # done, error, caller_gone, cut, timeout
    cause: str = ""
    first_byte_at: float | None = None
    bytes_sent: int = 0

    def write(self) -> None:
        """The access line: at WARNING where we or the upstream failed, else at INFO."""
        now = time.monotonic()
        facts = {
            "request_id": self.request_id,
            "caller": self.caller,
            "method": self.method,
            "route": self.route,
            "model": self.model[:NAME_MOST_CHARS],
            "upstream": self.upstream,
            "status": self.status,
            "outcome": self.outcome,
            "first_byte_ms": None if self.first_byte_at is None else round(1000 * (self.first_byte_at - self.started)),
            "duration_ms": round(1000 * (now - self.started)),
            "bytes": self.bytes_sent,
            "cause": self.cause,
        }
        line = " ".join(f"{name}={_quoted(value)}" for name, value in facts.items() if value not in (None, ""))
        level = "WARNING" if self.status >= 500 or self.outcome in ("cut", "timeout") else "INFO"
        logger.bind(**facts).log(level, "request {}", line)


def _quoted(value: object) -> str:
    """A value without blanks as it is; any other text quoted, so that it cannot pass for a second line or field."""
    text = str(value)
    return text if text.isascii() and text.isprintable() and " " not in text and '"' not in text else ascii(text)
