"""The example of docs/adding-a-source.md, run as it stands on the page."""

import math
import re
import socket
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter

import config.sources
import proxy.token_sources.local
from proxy.tokens.sources.base import Grant, TokenFetchError

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.fixture
def blocks(pytestconfig: pytest.Config) -> dict[str, str]:
    """The page's code by the file that its first line names; YAML under `yaml`."""
    text = (pytestconfig.rootpath / "docs" / "adding-a-source.md").read_text()
    return {
        code.partition("\n")[0].removeprefix("# ") if language == "python" else language: code
        for language, code in _BLOCK.findall(text)
    }


@pytest.fixture
def agent_module(blocks: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("proxy.tokens.sources.agent")
    exec(blocks["proxy/tokens/sources/agent.py"], vars(module))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def test_section_becomes_a_source_that_fetches(
    blocks: dict[str, str], agent_module: ModuleType, tmp_path: Path
) -> None:
    names = dict(vars(config.sources))
    exec(blocks["config/sources.py"], names)
    section = yaml.safe_load(blocks["yaml"])["corp"]
    section |= {"path": str(tmp_path / "agent"), "default_lifetime_s": 77}
    parsed = TypeAdapter(names["AgentSource"]).validate_python(section)

    sections = ModuleType("sections")
    vars(sections)["AgentSource"] = names["AgentSource"]
    names = {**vars(proxy.token_sources.local), "sections": sections, "AgentSource": agent_module.AgentSource}
    exec(blocks["proxy/token_sources/local.py"], names)
    source = names["build_agent"](parsed)
    with pytest.raises(TokenFetchError, match="agent: FileNotFoundError") as caught:
        source.fetch()
    assert caught.value.connection
    assert _answered(tmp_path / "agent", b'{"access_token": "t"}', source.fetch) == Grant("t", 77.0)
    with pytest.raises(TokenFetchError, match="agent: ValueError"):
        _answered(tmp_path / "agent", b"s3cret-mark", source.fetch)


def test_test_of_the_example_passes(blocks: dict[str, str], agent_module: ModuleType, tmp_path: Path) -> None:
    names = {
        "Path": Path,
        "socket": socket,
        "threading": threading,
        "Grant": Grant,
        "AgentSource": agent_module.AgentSource,
    }
    exec(blocks["tests/unit/proxy/tokens/sources/test_agent.py"], names)
    names["test_token_of_the_agent_is_taken_with_its_lifetime"](tmp_path)


def test_fetch_of_the_example_waits_5_s_in_all(
    agent_module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    class Watched(socket.socket):
        def connect(self, address: Any) -> None:
            waits.append(self.gettimeout() or math.inf)
            super().connect(address)

        def recv(self, *arguments: Any) -> bytes:
            waits.append(self.gettimeout() or math.inf)
            return super().recv(*arguments)

    source = agent_module.AgentSource(tmp_path / "agent", default_lifetime_s=300)

    def fetch() -> Grant:
        monkeypatch.setattr(socket, "socket", Watched)
        return source.fetch()

    assert _answered(tmp_path / "agent", b'{"access_token": "t"}', fetch) == Grant("t", 300.0)
    assert len(waits) == 2
    assert sum(waits) <= 5


def _answered(path: Path, reply: bytes, call):
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen()

        def answer() -> None:
            with listener.accept()[0] as peer:
                peer.send(reply)

        agent = threading.Thread(target=answer, daemon=True)
        agent.start()
        try:
            return call()
        finally:
            agent.join()
