"""The sandbox as the tests use it: a process of its own, its switches and its log."""

import base64
import json
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import httpx

from sandbox.process import SandboxProcess

Entry = dict[str, Any]


class SandboxClient:
    """A running sandbox and its control routes."""

    def __init__(self, process: SandboxProcess) -> None:
        self.url = process.url
        self._process = process
        self._control = httpx.Client(base_url=process.url + "/_sandbox", trust_env=False, timeout=10)

    @classmethod
    def start(cls, token_lifetime_s: float = 300.0, *, single_active: bool = False) -> "SandboxClient":
        return cls(SandboxProcess.start(token_lifetime_s=token_lifetime_s, single_active=single_active))

    def config(self, **sections: Any) -> dict[str, Any]:
        """Settings of a proxy in front of this sandbox; `upstream` and other sections are merged over them."""
        upstream = {
            "name": "llm",
            "base_url": self.url + "/v1",
            "token_source": "corp",
            "timeouts": {"connect_s": 2, "first_byte_s": 5, "idle_s": 3, "total_s": 30},
            **sections.pop("upstream", {}),
        }
        server = {"workers": 1, "drain_s": 5, **sections.pop("server", {})}
        source = {
            "type": "http_json",
            "url": self.url + "/token",
            "json": {"appId": "sandbox-app", "appSecret": "sandbox-secret"},
        }
        return {"server": server, "token_sources": {"corp": source}, "upstreams": [upstream], **sections}

    def faults(self, **faults: list[dict[str, Any]]) -> None:
        """Switch faults on: `upstream=[...]`, `issuer=[...]`."""
        self._control.put("/faults", json=faults).raise_for_status()

    def frames(self, *pieces: bytes, pause_ms: float = 0) -> None:
        """Let the next streams consist of these pieces, each written by itself."""
        encoded = [base64.b64encode(piece).decode() for piece in pieces]
        self.faults(upstream=[{"kind": "frames", "pieces": encoded, "pause_ms": pause_ms}])

    def raw(self, answer: bytes, *more: bytes, pause_ms: float = 0, **fault: Any) -> None:
        """Let the upstream answer with these bytes and close."""
        pieces = [base64.b64encode(piece).decode() for piece in (answer, *more)]
        self.faults(upstream=[{"kind": "raw", "pieces": pieces, "pause_ms": pause_ms, **fault}])

    def revoke(self) -> None:
        self._control.post("/revoke").raise_for_status()

    def state(self) -> Entry:
        return dict(self._control.get("/state").raise_for_status().json())

    def log(self) -> list[Entry]:
        """Every request to the upstream, oldest first; `body` as bytes."""
        entries = self._control.get("/log").raise_for_status().json()
        return [{**entry, "body": base64.b64decode(entry["body"])} for entry in entries if entry["kind"] == "upstream"]

    def take_ended(self) -> list[Entry]:
        """Every request that has ended, to the issuer too and without bodies; the log forgets them."""
        return list(self._control.post("/log/take").raise_for_status().json())

    def last(self) -> Entry:
        return self.log()[-1]

    def wait_until(self, holds: Callable[[Entry], bool], within_s: float = 5.0) -> float:
        """Seconds until the sandbox's state is as asked; an AssertionError when it does not become so."""
        began = time.monotonic()
        while time.monotonic() - began < within_s:
            if holds(self.state()):
                return time.monotonic() - began
            time.sleep(0.02)
        raise AssertionError(f"the sandbox did not reach the state in {within_s} s: {json.dumps(self.state())}")

    def reset(self) -> None:
        self._control.post("/reset").raise_for_status()

    def __enter__(self) -> "SandboxClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._control.close()
        self._process.stop()
