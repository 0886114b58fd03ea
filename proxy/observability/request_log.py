"""What is known of one request, collected on its way, and its one line in the log when the last byte is out.

The line goes into the same stream as all others and looks like them, but past loguru, which takes longer for it than
the whole rest of the observing (`docs/decisions/0006`).
"""

import json
import re
import sys
import time
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any, TextIO

from proxy.observability.logging import Format, is_enabled, redact

NAME_MOST_CHARS = 100
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_PLAIN = re.compile(r"[!#-~]+")  # visible ASCII but for the quote


@dataclass(slots=True)
class RequestLog:
    """One request's facts: no key, no body. `model` is the caller's text, so it is cut and quoted when written, and
    known only once an upstream serves it."""

    request_id: str
    method: str
    route: str
    started: float = field(default_factory=time.monotonic)
    caller: str = "-"
    model: str = "-"
    upstream: str = "-"
    failed_over_from: str | None = None  # the upstream that took nobody
    status: int = 0
    outcome: str = "done"  # done, error, caller_gone, cut, timeout
    cause: str = ""
    sent_at: float | None = None  # when the upstream was asked; this and the others by time.monotonic()
    received_at: float | None = None  # when its whole answer was here
    first_byte_at: float | None = None
    frames: int | None = None  # of a stream
    bytes_sent: int = 0
    usage: tuple[int, int] | None = None  # prompt and completion tokens, where the upstream tells

    def overhead_s(self) -> float | None:
        """What the proxy added before the first byte; None where no upstream answered."""
        if self.sent_at is None or self.first_byte_at is None:
            return None
        after_s = 0.0 if self.received_at is None else self.first_byte_at - self.received_at
        return self.sent_at - self.started + after_s

    def facts(self) -> dict[str, Any]:
        now = time.monotonic()
        prompt_tokens, completion_tokens = self.usage or (None, None)
        return {
            "request_id": self.request_id,
            "caller": self.caller,
            "method": self.method,
            "route": self.route,
            "model": _name(self.model[: 2 * NAME_MOST_CHARS]),
            "upstream": self.upstream,
            "failed_over_from": self.failed_over_from,
            "status": self.status,
            "outcome": self.outcome,
            "first_byte_ms": None if self.first_byte_at is None else round(1000 * (self.first_byte_at - self.started)),
            "duration_ms": round(1000 * (now - self.started)),
            "frames": self.frames,
            "bytes": self.bytes_sent,
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "cause": self.cause,
        }

    @property
    def level(self) -> str:
        """WARNING where we or the upstream failed."""
        return "WARNING" if self.status >= 500 or self.outcome in ("cut", "timeout") else "INFO"


class AccessLog:
    """Writes the line of each request."""

    def __init__(self, *, level: str = "INFO", line_format: Format = "text", stream: TextIO | None = None) -> None:
        self._as_json = line_format == "json"
        self._levels = {name for name in ("INFO", "WARNING") if is_enabled(name, level)}
        self._stream = sys.stderr if stream is None else stream

    def write(self, log: RequestLog) -> None:
        level = log.level
        if level not in self._levels:
            return
        facts, moment = log.facts(), _moment(time.time())
        words = [
            f"{name}={_quoted(value) if isinstance(value, str) else value}"
            for name, value in facts.items()
            if value is not None and value != ""
        ]
        message = f"request {' '.join(words)}"
        if self._as_json:
            entry = {"time": moment.replace(" ", "T"), "level": level, "message": message, **facts}
            line = json.dumps(entry, ensure_ascii=False)
        else:
            line = f"{moment} {level: <8} {message}"
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            # A full disk or a closed pipe is no reason to fail a request that is over.
            return


def _moment(now: float) -> str:
    """The local time of a Unix time, to the millisecond and with its offset."""
    second = _second(int(now))
    return f"{second[:19]}.{int(now % 1 * 1000):03}{second[19:]}"


@lru_cache(maxsize=1)
def _second(now: int) -> str:
    return datetime.fromtimestamp(now).astimezone().isoformat(" ")


# Most requests have the names of others. Cut before, so that no caller decides how much is kept.
@lru_cache(maxsize=1024)
def _name(text: str) -> str:
    """Up to a control character, which no name has. Cut last, as of a key that is cut the rest is not known for one."""
    return redact(_CONTROL.split(text, 1)[0])[:NAME_MOST_CHARS] or "-"


def _quoted(text: str) -> str:
    """A text without blanks as it is; any other quoted, so that it cannot pass for a second line or field."""
    return text if _PLAIN.fullmatch(text) else ascii(text)
