"""One token for all workers of a host: one fetch, none after a restart, and one renewal where many are refused."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.load import ask_at_once
from tests.support.proxy_process import ProxyProcess
from tests.support.sandbox_client import SandboxClient
from tests.support.waiting import wait_for


def workers(proxy: ProxyProcess) -> list[int]:
    children = Path(f"/proc/{proxy.process.pid}/task/{proxy.process.pid}/children").read_text()
    return [int(child) for child in children.split()]


def config(sandbox: SandboxClient, worker_class: str) -> dict[str, Any]:
    return sandbox.config(server={"worker_class": worker_class, "workers": 4})


def test_four_workers_a_killed_one_a_reload_and_a_restart_make_one_fetch(
    tmp_path: Path, own_sandbox: SandboxClient, worker_class: str
) -> None:
    own_sandbox.faults(issuer=[{"kind": "delay", "delay_s": 0.5}])
    settings = config(own_sandbox, worker_class)
    proxy = ProxyProcess.start(settings, tmp_path)
    try:
        assert set(ask_at_once(proxy, 40)) == {200}
        killed = workers(proxy)[0]
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda: len(workers(proxy)) == 4 and killed not in workers(proxy), 10)
        proxy.signal(signal.SIGHUP)
        assert set(ask_at_once(proxy, 40)) == {200}
    finally:
        assert proxy.stop() == 0
    again = ProxyProcess.start(settings, tmp_path)
    try:
        assert set(ask_at_once(again, 40)) == {200}
    finally:
        again.stop()
    assert own_sandbox.state()["fetches"] == 1


def test_a_revoked_token_is_fetched_anew_once_for_all_workers(
    tmp_path: Path, own_sandbox: SandboxClient, worker_class: str
) -> None:
    proxy = ProxyProcess.start(config(own_sandbox, worker_class), tmp_path)
    try:
        assert set(ask_at_once(proxy, 40)) == {200}
        own_sandbox.faults(issuer=[{"kind": "delay", "delay_s": 0.5}])
        own_sandbox.revoke()
        assert set(ask_at_once(proxy, 60)) == {200}
        assert own_sandbox.state()["fetches"] == 2
    finally:
        proxy.stop()


def test_preloaded_and_recycled_workers_make_one_fetch(
    tmp_path: Path, own_sandbox: SandboxClient, worker_class: str
) -> None:
    settings = config(own_sandbox, worker_class)
    proxy = ProxyProcess.start(settings, tmp_path, {"GUNICORN_CMD_ARGS": "--preload --max-requests 10"})
    try:
        first = set(workers(proxy))
        while first & set(workers(proxy)):
            assert set(ask_at_once(proxy, 20)) == {200}
        assert own_sandbox.state()["fetches"] == 1
    finally:
        assert proxy.stop() == 0


@pytest.mark.parametrize("spoil", ["nonsense", ""])
def test_a_spoilt_record_is_replaced(tmp_path: Path, own_sandbox: SandboxClient, spoil: str) -> None:
    settings = own_sandbox.config()
    proxy = ProxyProcess.start(settings, tmp_path)
    assert ask_at_once(proxy, 1) == [200]
    proxy.stop()
    for file in (tmp_path / "llm-proxy").glob("*.json"):
        file.write_text(spoil)
    again = ProxyProcess.start(settings, tmp_path)
    try:
        assert ask_at_once(again, 1) == [200]
        assert own_sandbox.state()["fetches"] == 2
    finally:
        again.stop()


def test_a_changed_secret_does_not_find_the_old_token(tmp_path: Path, own_sandbox: SandboxClient) -> None:
    settings = own_sandbox.config()
    proxy = ProxyProcess.start(settings, tmp_path)
    assert ask_at_once(proxy, 1) == [200]
    proxy.stop()
    settings["token_sources"]["corp"]["json"]["appSecret"] = "wrong"
    other = ProxyProcess.start(settings, tmp_path)
    try:
        assert ask_at_once(other, 1) == [503]
    finally:
        other.stop()
