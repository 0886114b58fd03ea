"""The sandbox as a child process: it starts or says why not, and never outlives its parent."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from sandbox.process import SandboxError, SandboxProcess

ROOT = Path(__file__).resolve().parents[3]


def is_listening(url: str) -> bool:
    try:
        return httpx.get(url + "/_sandbox/state", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def test_stop_ends_it_and_may_be_called_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sandbox").mkdir()
    (tmp_path / "sandbox" / "__init__.py").write_text("raise SystemExit('the wrong package')")
    monkeypatch.chdir(tmp_path)
    process = SandboxProcess.start(token_lifetime_s=1.5)
    assert is_listening(process.url)
    process.stop()
    process.stop()
    assert not is_listening(process.url)
    assert process.complaints() == ""


def test_it_ends_when_its_parent_is_killed() -> None:
    code = "import sandbox.process as p; s = p.SandboxProcess.start(); print(s.url, flush=True); input()"
    command, pipe = [sys.executable, "-c", code], subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as parent:
        assert parent.stdout is not None
        url = parent.stdout.readline().strip()
        assert is_listening(url)
        parent.kill()
    until = time.monotonic() + 3
    while is_listening(url):
        assert time.monotonic() < until
        time.sleep(0.02)


def test_stop_in_a_forked_child_leaves_it_running() -> None:
    with SandboxProcess.start() as process:
        child = os.fork()
        if child == 0:
            process.stop()
            os._exit(0)
        os.waitpid(child, 0)
        assert is_listening(process.url)


def test_a_taken_port_and_a_public_address_are_one_clear_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(SandboxError, match=f"^cannot listen on {bind}: Address already in use"):
            SandboxProcess.start(bind)
    for bind in ("0.0.0.0:0", "example.com:80", "127.0.0.1", "127.0.0.1:70000"):
        with pytest.raises(SandboxError, match=f"^cannot listen on {bind}: "):
            SandboxProcess.start(bind)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_quietly(number: signal.Signals) -> None:
    command = [sys.executable, "-m", "sandbox"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b'{"url": "http://127.0.0.1:')
        process.send_signal(number)
        assert process.communicate(timeout=5) == (b"", b"")
    assert process.returncode == 0
