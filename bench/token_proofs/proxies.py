"""Proxies as the proofs run them: gunicorn with the bench's issuer, stopped in every case, and their processes."""

import http.client
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bench.token_proofs.issuer import Issuer
from bench.token_proofs.load import Caller
from tests.support.proxy_process import ProxyProcess, free_port, launch
from tests.support.sandbox_client import SandboxClient

Config = dict[str, Any]
_READY_WITHIN_S = 60.0  # sixteen workers start side by side on a small machine
_LOOK_EVERY_S = 0.02


def config_for(sandbox: SandboxClient, issuer: Issuer | None = None, *, workers: int = 1, **sections: Any) -> Config:
    """Settings of a proxy in front of the sandbox's upstream, its tokens from the bench's issuer or the sandbox's."""
    config = sandbox.config(server={"workers": workers}, **sections)
    if issuer is not None:
        config["token_sources"]["corp"]["url"] = issuer.url
    return config


def start(config: Config, folder: Path, port: int | None = None, environ: dict[str, str] | None = None) -> ProxyProcess:
    """A proxy that has answered; `folder` is its runtime folder, so a proxy started there again finds its token."""
    port = port or free_port()
    proxy = ProxyProcess(launch(config, folder, port, environ), port, folder / f"{port}.log")
    try:
        wait_for(lambda: _answers(proxy), _READY_WITHIN_S, "a proxy that answers")
    except BaseException:
        kill_all(proxy)
        raise
    return proxy


@contextmanager
def running(config: Config, folder: Path, environ: dict[str, str] | None = None) -> Iterator[ProxyProcess]:
    """A proxy for the time of a proof."""
    proxy = start(config, folder, environ=environ)
    try:
        yield proxy
    finally:
        proxy.stop()


def kill_all(proxy: ProxyProcess) -> None:
    """SIGKILL to the master and all of its workers."""
    with suppress(ProcessLookupError):
        os.killpg(proxy.process.pid, signal.SIGKILL)
    proxy.process.wait()


def workers_of(proxy: ProxyProcess) -> set[int]:
    master = proxy.process.pid
    try:
        return set(map(int, Path(f"/proc/{master}/task/{master}/children").read_text().split()))
    except OSError:
        return set()


def warm_up(proxy: ProxyProcess, workers: int) -> None:
    """Ask on many connections at once, so that each worker holds the token. Raises AssertionError where one fails."""
    callers = [Caller(proxy.port) for _ in range(8 * workers)]
    answers = [caller.ask() for caller in callers]  # kept open, so that the next goes to whichever worker is free
    for caller in callers:
        caller.close()
    bad = [answer for answer in answers if answer.status != 200]
    assert not bad, f"warming up: {bad[0]}\n{proxy.log()[-2000:]}"


def owner_of_connection(port: int, peer_port: int, pids: set[int]) -> int | None:
    """Which of the processes has the TCP connection from the one port to the other, or None."""
    inode = _inode_of_connection(port, peer_port)
    for pid in pids:
        with suppress(OSError):
            for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(OSError):
                    if os.readlink(descriptor) == f"socket:[{inode}]":
                        return pid
    return None


def wait_for(holds: Callable[[], bool], within_s: float, what: str) -> float:
    """Seconds until it holds; an AssertionError when it does not in time."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < within_s, f"no {what} within {within_s} s"
        time.sleep(_LOOK_EVERY_S)
    return time.monotonic() - began


def processes_in(folder: Path) -> list[int]:
    """The living processes whose settings are below the folder: what a proof has left behind."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):
                if os.fsencode(folder) in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
    return found


def _answers(proxy: ProxyProcess) -> bool:
    assert proxy.process.poll() is None, f"the proxy ended with {proxy.process.returncode}:\n{proxy.log()[-2000:]}"
    with suppress(OSError):
        connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=5)
        connection.request("GET", "/healthz")
        ready = connection.getresponse().status == 200
        connection.close()
        return ready
    return False


def _inode_of_connection(port: int, peer_port: int) -> str:
    """Linux gives one local port to several connections, as long as their peers differ."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if [int(address.rpartition(":")[2], 16) for address in fields[1:3]] == [port, peer_port]:
            return fields[9]
    return ""
