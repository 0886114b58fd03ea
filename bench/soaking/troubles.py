"""Faults of the issuer and the upstream, drawn by a seed and switched on in the sandbox for a few requests each."""

import base64
import json
import time
from random import Random
from typing import Any, TypeAlias

from bench.soaking.answer import FROM_UPSTREAM
from tests.support.sandbox_client import SandboxClient

Fault: TypeAlias = dict[str, Any]

_ERROR = json.dumps({"error": {"message": "No.", "type": "server_error", "param": None, "code": FROM_UPSTREAM}})
_HTML = "<html>Bad gateway</html>"

UPSTREAM: tuple[Fault, ...] = (
    {"kind": "status", "status": 500, "body": _ERROR},
    {"kind": "status", "status": 429, "body": _ERROR, "headers": {"Retry-After": "1"}},
    {"kind": "status", "status": 404, "body": _ERROR},
    {"kind": "status", "status": 502, "body": _HTML, "headers": {"Content-Type": "text/html"}},
    {"kind": "reply", "body": _HTML, "content_type": "text/html"},
    {"kind": "redirect", "location": "http://192.0.2.1/"},
    {"kind": "raw", "bytes": base64.b64encode(b"no HTTP at all\r\n\r\n").decode()},
    {"kind": "reset"},
    {"kind": "close"},
    {"kind": "hang"},
    {"kind": "delay", "delay_s": 1},
    {"kind": "cut", "frames": 2},
    {"kind": "cut", "frames": 1, "half": True},
    {"kind": "stream_reset", "frames": 2, "half": True},
    {"kind": "stall", "frames": 2},
    {"kind": "no_finish"},
    {"kind": "no_done"},
    {"kind": "sse_crlf"},
    {"kind": "gzip"},
    {"kind": "short", "path": "/embeddings"},
    {"kind": "no_keepalive_notice"},
)
ISSUER: tuple[Fault, ...] = (
    {"kind": "status", "status": 500},
    {"kind": "status", "status": 503, "headers": {"Retry-After": "1"}},
    {"kind": "status", "status": 429, "headers": {"Retry-After": "5"}},  # a longer one is obeyed for up to a minute
    {"kind": "reply", "body": _HTML, "content_type": "text/html"},
    {"kind": "reply", "body": '{"access_token": 7}'},
    {"kind": "hang"},
    {"kind": "reset"},
    {"kind": "delay", "delay_s": 3},
)


class Troubles:
    """`history` tells what was done and when, in seconds since the begin."""

    def __init__(self, sandbox: SandboxClient, dice: Random) -> None:
        self.history: list[str] = []
        self._sandbox = sandbox
        self._dice = dice
        self._began = time.monotonic()
        self._upstream: list[Fault] = []
        self._issuer: list[Fault] = []

    def note(self, what: str) -> None:
        self.history.append(f"{time.monotonic() - self._began:5.1f} s {what}")

    def trouble_upstream(self, kinds: int = 2, *, times_most: int = 3) -> None:
        """Let the next few requests meet these faults; what is left of those before is over."""
        drawn = self._dice.sample(UPSTREAM, kinds)
        self._upstream = [{**fault, "times": self._dice.randint(1, times_most)} for fault in drawn]
        self.note("upstream: " + ", ".join(f"{fault['times']} x {fault['kind']}" for fault in self._upstream))
        self._switch()

    def trouble_issuer(self) -> None:
        """From now on, until it is eased."""
        self._issuer = [self._dice.choice(ISSUER)]
        self.note(f"issuer: {self._issuer[0]['kind']}")
        self._switch()

    def ease_issuer(self) -> None:
        self._issuer = []
        self.note("issuer: good again")
        self._switch()

    def refuse_tokens(self) -> None:
        """End every token before its time."""
        self.note("tokens are revoked")
        self._sandbox.revoke()

    def end(self) -> None:
        self._upstream, self._issuer = [], []
        self.note("all is good again")
        self._switch()

    def _switch(self) -> None:
        self._sandbox.faults(upstream=self._upstream, issuer=self._issuer)
