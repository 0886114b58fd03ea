"""Start and stop, as an operator does them: clear faults, exit status, nothing left behind."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.support.proxy_process import ROOT, ProxyProcess, free_port, launch
from tests.support.raw_http import RawCaller
from tests.support.sandbox_client import SandboxClient
from tests.support.waiting import wait_for

CHAT = "/v1/chat/completions"
MARK = "marked-secret-9"


def processes_of(group: int) -> list[int]:
    """The living processes of a session, so that a leftover is seen even when its parent is gone."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text().rpartition(") ")[2].split()
            except OSError:
                continue
            if int(stat[3]) == group and stat[0] != "Z":
                found.append(int(entry.name))
    return found


def test_the_shipped_config_starts_with_its_sandbox_and_stops_without_a_trace(tmp_path: Path) -> None:
    port, sandbox_port = free_port(), free_port()
    environ = {"LLM_PROXY_BIND": f"127.0.0.1:{port}", "SANDBOX_BIND": f"127.0.0.1:{sandbox_port}"}
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    proxy = ProxyProcess(launch(config, tmp_path, port, environ), port, tmp_path / f"{port}.log")
    proxy._wait_until_alive()
    answer = httpx.post(
        proxy.api + "/chat/completions", json={"model": "m", "messages": [{"role": "user", "content": "x"}]}
    )
    assert answer.status_code == 200
    assert "SANDBOX" in proxy.log()
    assert f"curl http://127.0.0.1:{port}/agent/api/llm_proxy/v1/chat/completions" in proxy.log()
    os.killpg(proxy.process.pid, signal.SIGINT)  # as ctrl-C does
    assert proxy.process.wait(20) == 0
    assert processes_of(proxy.process.pid) == []
    with socket.socket() as sock:
        assert sock.connect_ex(("127.0.0.1", sandbox_port)) != 0


@pytest.mark.parametrize("kill", [signal.SIGKILL])
def test_the_sandbox_ends_with_a_killed_master(tmp_path: Path, kill: signal.Signals, sandbox: SandboxClient) -> None:
    sandbox_port = free_port()
    proxy = ProxyProcess.start({**sandbox.config(), "sandbox": {"bind": f"127.0.0.1:{sandbox_port}"}}, tmp_path)
    proxy.signal(kill)
    proxy.process.wait(10)
    until = time.monotonic() + 15
    while _is_open(sandbox_port):
        assert time.monotonic() < until
        time.sleep(0.1)


def _is_open(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def test_a_term_signal_lets_a_running_stream_finish_and_exits_0(
    tmp_path: Path, sandbox: SandboxClient, worker_class: str
) -> None:
    proxy = ProxyProcess.start(sandbox.config(server={"worker_class": worker_class, "drain_s": 20}), tmp_path)
    with RawCaller(proxy.port) as caller:
        body = {"model": "m", "messages": [{"role": "user", "content": "Hello"}], "stream": True}
        caller.post(CHAT, {**body, "sandbox_frames": 4, "sandbox_interval_ms": 500})
        caller.read_until(b"\n\n\r\n")
        proxy.signal(signal.SIGTERM)
        assert b"data: [DONE]" in caller.read_until(b"0\r\n\r\n")
    assert proxy.process.wait(30) == 0
    assert processes_of(proxy.process.pid) == []


def test_a_term_signal_waits_for_no_idle_connection(tmp_path: Path, sandbox: SandboxClient, worker_class: str) -> None:
    proxy = ProxyProcess.start(sandbox.config(server={"drain_s": 60, "worker_class": worker_class}), tmp_path)
    with httpx.Client(trust_env=False) as client:
        assert client.get(f"{proxy.url}/healthz").status_code == 200
        proxy.signal(signal.SIGTERM)
        assert proxy.process.wait(30) == 0  # of the 60 s that a running stream would have


def test_a_reload_under_load_fails_no_request(tmp_path: Path, sandbox: SandboxClient) -> None:
    proxy = ProxyProcess.start(sandbox.config(server={"drain_s": 10}), tmp_path)
    try:
        statuses = []
        for number in range(40):
            if number % 10 == 5:
                proxy.signal(signal.SIGHUP)
            body: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
            statuses.append(httpx.post(proxy.url + CHAT, json=body, trust_env=False).status_code)
            time.sleep(0.05)
        assert statuses == [200] * 40
    finally:
        assert proxy.stop() == 0


def test_a_reload_takes_a_new_config_and_keeps_the_old_one_when_the_new_is_bad(
    tmp_path: Path, sandbox: SandboxClient
) -> None:
    proxy = ProxyProcess.start(sandbox.config(), tmp_path)
    file = tmp_path / f"{proxy.port}.yaml"
    try:
        good = yaml.safe_load(file.read_text())
        file.write_text("upstreams: nonsense\n")
        proxy.signal(signal.SIGHUP)
        wait_for(lambda: "config: upstreams: " in proxy.log() and _status_of_chat(proxy) == 200)
        file.write_text(yaml.safe_dump({**good, "client_keys": [{"label": "a", "sha256": "0" * 64}]}))
        proxy.signal(signal.SIGHUP)
        wait_for(lambda: _status_of_chat(proxy) == 401)
    finally:
        assert proxy.stop() == 0


def _status_of_chat(proxy: ProxyProcess) -> int:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
    return httpx.post(proxy.url + CHAT, json=body, trust_env=False).status_code


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"upstreams": []}, "upstreams: "),
        ({"nonsense": 1}, "nonsense: "),
        ({"client_keys": [{"label": "a", "sha256": MARK}]}, "client_keys[0].sha256: "),
        ({"server": {"bind": "0.0.0.0:5002"}}, "client_keys: "),
        ({"logging": {"level": "${NO_SUCH_VARIABLE}"}}, "logging.level: "),
    ],
    ids=["no upstream", "unknown key", "bad digest", "open without keys", "missing variable"],
)
def test_a_bad_config_ends_the_start_with_a_line_per_fault(
    tmp_path: Path, sandbox: SandboxClient, change: dict[str, Any], expected: str
) -> None:
    began = time.monotonic()
    process = launch({**sandbox.config(), **change}, tmp_path, 5999)
    assert process.wait(10) == 1
    log = (tmp_path / "5999.log").read_text()
    assert f"config: {expected}" in log
    assert "Traceback" not in log
    assert MARK not in log
    assert time.monotonic() - began < 10


def test_check_prints_all_faults_at_once_and_exits_1(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("server: {workers: 0}\nupstreams: [{name: a, base_url: nonsense, token_source: none}]\nextra: 1\n")
    done = subprocess.run(
        [sys.executable, "-m", "proxy", "--config", str(file), "check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    paths = sorted(line.partition(": ")[0] for line in done.stderr.splitlines())
    assert paths == ["extra", "server.workers", "upstreams[0].base_url", "upstreams[0].token_source"]


def test_a_taken_port_ends_the_start(tmp_path: Path, sandbox: SandboxClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = launch(sandbox.config(), tmp_path, taken.getsockname()[1])
        assert process.wait(15) != 0


def test_no_marked_secret_is_in_the_log_at_trace(tmp_path: Path, own_sandbox: SandboxClient) -> None:
    config = own_sandbox.config(logging={"level": "TRACE"})
    proxy = ProxyProcess.start(config, tmp_path)
    try:
        fields = {"Authorization": f"Bearer {MARK}", "api-key": MARK}
        body = {"model": "m", "messages": [{"role": "user", "content": MARK}]}
        httpx.post(proxy.url + CHAT, json=body, headers=fields, trust_env=False)
        httpx.post(proxy.url + CHAT, content=MARK.encode(), headers=fields, trust_env=False)
        own_sandbox.faults(upstream=[{"kind": "reset"}], issuer=[{"kind": "status", "status": 401}])
        httpx.post(proxy.url + CHAT, json=body, headers=fields, trust_env=False)
        token = dict(map(tuple, own_sandbox.log()[0]["headers"]))["Authorization"].partition(" ")[2]
    finally:
        proxy.stop()
    assert MARK not in proxy.log()
    assert token not in proxy.log()
    assert "sandbox-secret" not in proxy.log()
