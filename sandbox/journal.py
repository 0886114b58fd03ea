"""The journal: what every issuer and upstream request held, and what became of it. Tests read it over HTTP.

`exchange` opens and closes entries, `upstream` notes what it found in one, `server` counts connections.
"""

import base64
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any, Literal

from sandbox.tokens import TokenState

Side = Literal["issuer", "upstream"]
End = Literal["done", "caller_gone", "fault"]

MAX_ENTRIES = 20_000
# Bodies of older entries are dropped first, so that a load test cannot eat the machine's memory.
MAX_KEPT_BODY_BYTES = 64 * 1024 * 1024


@dataclass
class Entry:
    """One request; the answer's members are filled in as it goes out. end is None while it runs."""

    kind: Side
    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes | None = None
    body_bytes: int = 0
    at: float = field(default_factory=time.time)
    model: str | None = None
    token: TokenState | None = None
    token_serial: int | None = None
    status: int | None = None
    faults: list[str] = field(default_factory=list)
    frames_sent: int = 0
    answer_sha256: str | None = None
    end: End | None = None
    ended_at: float | None = None

    def values_of(self, name: str) -> list[str]:
        """Get every value of a field, its name in any case."""
        return [value.strip() for field_name, value in self.headers if field_name.lower() == name.lower()]

    def as_json(self, *, bodies: bool) -> dict[str, Any]:
        """Build the entry as the log shows it; without bodies it leaves the headers out too.

        A body that was dropped shows as empty; body_bytes still tells how long it was.
        """
        members = dict(self.__dict__)
        headers, body = members.pop("headers"), members.pop("body")
        if bodies:
            members["headers"] = headers
            members["body"] = base64.b64encode(body or b"").decode()
        return members


class Journal:
    """Entries of the latest requests, and counts since the start or the last clear."""

    def __init__(self) -> None:
        self.connections = 0
        self._open = 0
        self.clear()

    def clear(self) -> None:
        """Forget entries and counts; what is open now stays counted as open."""
        self._entries: deque[Entry] = deque(maxlen=MAX_ENTRIES)
        self._with_body: deque[Entry] = deque()
        self._kept_body_bytes = 0
        self._requests: Counter[Side] = Counter()
        self._tokens: Counter[TokenState] = Counter()

    def open(self, entry: Entry) -> None:
        """Note that a request has come."""
        self._entries.append(entry)
        self._requests[entry.kind] += 1
        self._open += entry.kind == "upstream"

    def keep_body(self, entry: Entry, body: bytes) -> None:
        """Note a request's body, and drop the oldest bodies where too much is kept."""
        entry.body, entry.body_bytes = body, len(body)
        self._with_body.append(entry)
        self._kept_body_bytes += len(body)
        while self._kept_body_bytes > MAX_KEPT_BODY_BYTES or len(self._with_body) > MAX_ENTRIES:
            oldest = self._with_body.popleft()
            oldest.body = None
            self._kept_body_bytes -= oldest.body_bytes

    def count_token(self, entry: Entry) -> None:
        """Count what the check of an upstream request's token found."""
        if entry.token:
            self._tokens[entry.token] += 1

    def close(self, entry: Entry, end: End) -> None:
        """Note how a request ended."""
        entry.end, entry.ended_at = end, time.time()
        self._open -= entry.kind == "upstream"

    def entries(self, *, bodies: bool) -> list[dict[str, Any]]:
        """Get the log, oldest first."""
        return [entry.as_json(bodies=bodies) for entry in self._entries]

    def take_ended(self) -> list[dict[str, Any]]:
        """Get the entries that have ended, and forget them; the counts stay."""
        ended = [entry.as_json(bodies=False) for entry in self._entries if entry.end is not None]
        self._entries = deque((entry for entry in self._entries if entry.end is None), maxlen=MAX_ENTRIES)
        self._with_body = deque(entry for entry in self._with_body if entry.end is None)
        self._kept_body_bytes = sum(entry.body_bytes for entry in self._with_body)
        return ended

    def state(self) -> dict[str, Any]:
        """Get the counts: token fetches and upstream requests that came, what is open, tokens by finding."""
        states: tuple[TokenState, ...] = ("valid", "expired", "revoked", "bad", "missing")
        return {
            "fetches": self._requests["issuer"],
            "requests": self._requests["upstream"],
            "open": self._open,
            "connections": self.connections,
            "tokens": {state: self._tokens[state] for state in states},
        }
