"""Starts that cannot work: one clear line, an exit status that is not 0 within five seconds, and no secret shown."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.process_facts import processes_of
from tests.support.proxy_process import launch
from tests.support.sandbox_client import SandboxClient
from tests.support.secret_traces import found_in

MARK = "marked-secret-9"
ENDS_WITHIN_S = 15.0  # five by the rule, on a machine that does nothing else


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


def end_of(config: dict[str, Any], folder: Path, port: int) -> tuple[int, list[str]]:
    """The exit status of a start, and the lines of its log; nothing is left of it."""
    process = launch(config, folder, port)
    try:
        status = process.wait(ENDS_WITHIN_S)
    finally:
        process.kill()
        process.wait()
    log = (folder / f"{port}.log").read_bytes()
    assert found_in(log, [MARK, "sandbox-secret"]) == []
    assert b"Traceback" not in log
    assert processes_of(process.pid) == set()
    return status, log.decode().splitlines()


def test_taken_port_ends_the_start_with_one_line_that_names_it(
    tmp_path: Path, sandbox: SandboxClient, worker_class: str, taken: int
) -> None:
    status, lines = end_of(sandbox.config(server={"worker_class": worker_class}), tmp_path, taken)
    assert status != 0
    assert len([line for line in lines if f"127.0.0.1:{taken}" in line]) == 1
    assert not [line for line in lines if "Booting worker" in line]


def test_address_that_nobody_knows_ends_the_start_with_one_line_that_says_so(
    tmp_path: Path, sandbox: SandboxClient
) -> None:
    keys = [{"label": "ragflow", "sha256": "0" * 64}]
    config = sandbox.config(server={"bind": "no-such-host.invalid:5998"}, client_keys=keys)
    status, lines = end_of(config, tmp_path, 5998)
    [line] = [line for line in lines if line.startswith("bind: no-such-host.invalid:5998: ")]
    assert status != 0
    assert "Unknown" not in line


@pytest.mark.parametrize(
    ("source", "path"),
    [
        pytest.param({"json": {"appSecret": {"file": "/absent/secret"}}}, "json", id="no file"),
        pytest.param({"json": {"appSecret": "${NO_SUCH_SECRET}"}}, "json", id="no variable"),
        pytest.param({"json": {"appSecret": {"file": "empty"}}}, "json", id="empty file"),
        pytest.param({"url": f"https://user:{MARK}@iam.example.com/token"}, "url", id="a secret in a URL"),
    ],
)
def test_secret_that_is_missing_or_misplaced_ends_the_start_with_its_path(
    tmp_path: Path, sandbox: SandboxClient, source: dict[str, Any], path: str
) -> None:
    (tmp_path / "empty").touch()
    config = sandbox.config()
    config["token_sources"]["corp"] |= source
    status, lines = end_of(config, tmp_path, 5998)
    assert status == 1
    assert [line for line in lines if line.startswith(f"config: token_sources.corp.{path}")] == lines
    assert len(lines) == 1
