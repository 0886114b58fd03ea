"""One sandbox process for the session, its switches off and its log empty before each test."""

import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from sandbox.process import SandboxProcess

CHAT = "/v1/chat/completions"


class Toy:
    """A sandbox as its tests use it: over HTTP, and over a bare socket where bytes matter."""

    def __init__(self, process: SandboxProcess) -> None:
        self.url = process.url
        self.process = process
        self.http = httpx.Client(base_url=process.url, trust_env=False, timeout=10)

    def fetch_token(self) -> str:
        body = {"appId": "sandbox-app", "appSecret": "sandbox-secret"}
        return str(self.http.post("/token", json=body).raise_for_status().json()["access_token"])

    def post(self, path: str, **body: Any) -> httpx.Response:
        return self.http.post(path, json=body, headers={"Authorization": f"Bearer {self.fetch_token()}"})

    def faults(self, *faults: dict[str, Any], side: str = "upstream") -> None:
        self.http.put("/_sandbox/faults", json={side: faults}).raise_for_status()

    def state(self) -> dict[str, Any]:
        return dict(self.http.get("/_sandbox/state").json())

    def last(self) -> dict[str, Any]:
        return dict(self.http.get("/_sandbox/log").json()[-1])

    def open_chat(self, *, stream: bool, **body: Any) -> socket.socket:
        """Send a chat request over a socket of its own and leave the answer there."""
        token = self.fetch_token()
        messages = [{"role": "user", "content": "Hello"}]
        members = {"messages": messages, "stream": stream, "sandbox_interval_ms": 1, **body}
        content = json.dumps(members).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {token}\r\n"
        address = urlsplit(self.url)
        caller = socket.create_connection((address.hostname, address.port), timeout=5)
        caller.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
        return caller


def read_to_end(caller: socket.socket) -> bytes:
    """Everything up to the end of the connection; ConnectionResetError where it was reset."""
    with caller:
        return b"".join(iter(lambda: caller.recv(65536), b""))


@pytest.fixture(scope="session")
def _toy_of_session() -> Iterator[Toy]:
    with SandboxProcess.start() as process:
        toy = Toy(process)
        yield toy
        toy.http.close()
        assert process.complaints() == ""


@pytest.fixture
def toy(_toy_of_session: Toy) -> Toy:
    _toy_of_session.http.post("/_sandbox/reset").raise_for_status()
    return _toy_of_session
