"""The official node client, in a process of its own: openai_node.mjs makes its calls and judges their answers."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.compatibility import Client
from tests.support.guarded_proxy import guarded_config
from tests.support.proxy_process import ROOT, ProxyFarm
from tests.support.sandbox_client import SandboxClient

SCRIPT = Path(__file__).with_name("openai_node.mjs")
PACKAGE = json.loads((ROOT / "package.json").read_text())
CLIENTS = [
    Client("openai-node", PACKAGE["devDependencies"]["openai"], {"rerank": "The client has no such call."}),
]
OTHER_CALLS = ("retries", "completions", "responses", "moderations", "images", "speech", "uploads", "models")


@pytest.fixture(scope="module")
def results(farm: ProxyFarm, _sandbox_of_session: SandboxClient) -> dict[str, Any]:
    """What the script prints: "pass" for each call, or what went wrong."""
    sandbox = _sandbox_of_session
    proxy = farm.proxy(sandbox.config(server={"worker_class": "gevent"}))
    guarded = farm.proxy(guarded_config(sandbox, "gevent"))
    done = subprocess.run(
        ["node", str(SCRIPT), proxy.api, guarded.url + "/v1", sandbox.url],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("feature", CLIENTS[0].cells())
def test_feature(results: dict[str, Any], feature: str) -> None:
    assert results[feature] == "pass"


@pytest.mark.parametrize("call", OTHER_CALLS)
def test_call_without_a_column(results: dict[str, Any], call: str) -> None:
    assert results[call] == "pass"
