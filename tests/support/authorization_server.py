"""A real authorization server as a process on loopback, asked for its keys like any other client would."""

import json
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from joserfc import jwt
from joserfc.jwk import KeySet

from tests.support.proxy_process import ROOT, free_port

READY_WITHIN_S = 20.0
STOP_WITHIN_S = 10.0


class AuthorizationServer:
    def __init__(self, http: httpx.Client, jwks_path: str) -> None:
        self.http = http
        self.url = str(http.base_url).rstrip("/")
        self._jwks_path = jwks_path

    def claims_of(self, token: str) -> dict[str, Any]:
        """The claims of a JWT, once its signature is found to be by one of the server's published keys."""
        keys = KeySet.import_key_set(self.http.get(self._jwks_path).raise_for_status().json())
        return jwt.decode(token, keys, algorithms=["RS256", "ES256"]).claims

    def is_ready(self) -> bool:
        try:
            return self.http.get(self._jwks_path).is_success
        except httpx.TransportError:
            return False


@contextmanager
def authorization_server(
    command: list[str], settings: dict[str, Any], folder: Path, *, jwks_path: str, ca_bundle: Path | None = None
) -> Iterator[AuthorizationServer]:
    """Run a command with a file of these settings, in them a free port; over TLS where there is a ca_bundle."""
    port = free_port()
    file, log_file = folder / f"{port}.json", folder / f"{port}.log"
    file.write_text(json.dumps({**settings, "port": port}))
    verify = True if ca_bundle is None else ssl.create_default_context(cafile=str(ca_bundle))
    url = f"{'http' if ca_bundle is None else 'https'}://127.0.0.1:{port}"
    with httpx.Client(base_url=url, verify=verify, trust_env=False, timeout=10) as http, log_file.open("wb") as log:
        process = subprocess.Popen([*command, str(file)], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            server = AuthorizationServer(http, jwks_path)
            until = time.monotonic() + READY_WITHIN_S
            while not server.is_ready():
                if process.poll() is not None or time.monotonic() > until:
                    raise AssertionError(f"no authorization server:\n{log_file.read_text(errors='replace')}")
                time.sleep(0.05)
            yield server
        finally:
            _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
