"""A report whose lines are kept, settings with marked secrets, and servers on loopback for the steps to meet."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from config import Settings, load
from proxy.doctor.foreign_text import ForeignText
from proxy.doctor.report import Report
from tests.support.authority import Authority
from tests.support.scripted_upstream import ScriptedUpstream

# Starts every secret in these tests: no line of a report may hold it.
MARK = "s3cret-mark"


@pytest.fixture
def mark() -> str:
    return MARK


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What was reported; checked in the end to be single lines without a marked secret."""
    lines: list[str] = []
    yield lines
    assert MARK not in "".join(lines)
    assert all(line.isprintable() for line in lines)


@pytest.fixture
def report(lines: list[str]) -> Report:
    return Report(lines.append)


@pytest.fixture
def settings_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Settings]:
    """Settings with these sections; the shared store is in a folder of the test's own."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))

    def settings_of(**sections: Any) -> Settings:
        file = tmp_path / "config.yaml"
        upstreams = [{"name": "llm", "base_url": "http://127.0.0.1:1/v1"}]
        file.write_text(yaml.safe_dump({"upstreams": upstreams, **sections}))
        return load(file, {})

    return settings_of


@pytest.fixture
def foreign(settings_of: Callable[..., Settings]) -> ForeignText:
    source = {"type": "static", "token": f"{MARK}-token"}
    upstream = {"name": "llm", "base_url": "http://127.0.0.1:1/v1", "headers": {"X-App-Id": f"{MARK}-header"}}
    return ForeignText(settings_of(token_sources={"corp": source}, upstreams=[upstream]))


@pytest.fixture
def server() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as server:
        yield server


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))
