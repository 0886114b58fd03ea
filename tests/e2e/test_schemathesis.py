"""Schemathesis against the document that the proxy serves: whatever it makes up, no answer is a server's error.

It runs as a process of its own, as its users run it: bounded, with a seed, and with no fault switched on behind the
proxy.
"""

import subprocess
import sys
from pathlib import Path

from tests.support.proxy_process import ProxyProcess
from tests.support.sandbox_client import SandboxClient

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
    "negative_data_rejection",
)


def run_schemathesis(proxy: ProxyProcess, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{proxy.url}/openapi.json", "--checks", ",".join(CHECKS)),
        *("--seed", "5", "--max-examples", "20", "--no-shrink", "--generation-database", "none"),
        # Keys that it made up would be refused; without one the proxy lets everybody in.
        *("--generation-with-security-parameters", "false", "--request-timeout", "10", "--no-color", *more),
    ]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100)


def test_schemathesis_finds_no_server_error(proxy: ProxyProcess, sandbox: SandboxClient, tmp_path: Path) -> None:
    run = run_schemathesis(proxy, tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    paths = {"/v1/chat/completions", "/v1/embeddings", "/v1/audio/speech", "/v1/audio/transcriptions"}
    assert {entry["path"] for entry in sandbox.log()} >= paths


def test_schemathesis_would_find_a_server_error(proxy: ProxyProcess, sandbox: SandboxClient, tmp_path: Path) -> None:
    sandbox.faults(upstream=[{"kind": "reset"}])
    run = run_schemathesis(proxy, tmp_path, "--include-path", "/chat/completions", "--max-failures", "1")
    assert run.returncode == 1, run.stdout + run.stderr
    assert "Server error" in run.stdout
