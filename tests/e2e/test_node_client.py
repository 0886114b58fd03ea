"""The official node client, in a process of its own."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.proxy_process import ROOT, ProxyProcess
from tests.support.sandbox_client import SandboxClient

SCRIPT = Path(__file__).with_name("openai_node.mjs")


def run_script(proxy: ProxyProcess) -> dict[str, Any]:
    done = subprocess.run(
        ["node", str(SCRIPT), proxy.api], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_chat_stream_tools_embeddings_and_models(proxy: ProxyProcess) -> None:
    result = run_script(proxy)
    assert "Hello wörld" in result["whole"]
    assert result["streamed"] == result["whole"]
    assert result["finish"] == "stop"
    assert result["tool"] == "weather"
    assert "sandbox-chat" in result["models"]


def test_embeddings_are_no_garbage_although_the_upstream_ignores_base64(
    proxy: ProxyProcess, sandbox: SandboxClient
) -> None:
    sandbox.faults(upstream=[{"kind": "ignore_base64"}])
    result = run_script(proxy)
    for packed, floats in zip(result["packed"], result["floats"], strict=True):
        assert packed == pytest.approx(floats, abs=1e-6)
