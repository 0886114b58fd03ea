"""The proxy as its users run it: `gunicorn wsgi:app` as a process, with a config file of the test's own."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import yaml

ROOT = Path(__file__).resolve().parents[2]
READY_WITHIN_S = 20.0
STOP_WITHIN_S = 20.0
MOST_AT_ONCE = 16  # each takes 100 MB; no test needs more than a few


class ProxyProcess:
    """A running proxy; its log is in a file."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log_file: Path) -> None:
        self.process = process
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.api = f"{self.url}/agent/api/llm_proxy/v1"
        self._log_file = log_file

    @classmethod
    def start(cls, config: dict[str, Any], folder: Path, environ: dict[str, str] | None = None) -> "ProxyProcess":
        """Start a proxy with these settings on a free port and wait until it answers."""
        port = free_port()
        proxy = cls(launch(config, folder, port, environ), port, folder / f"{port}.log")
        try:
            proxy._wait_until_alive()
        except BaseException:
            proxy.stop()
            raise
        return proxy

    def log(self, since: int = 0) -> str:
        """What it has written, all of it or from that byte on."""
        with self._log_file.open("rb") as file:
            file.seek(since)
            return file.read().decode(errors="replace")

    def logged_bytes(self) -> int:
        return self._log_file.stat().st_size

    def access_lines(self, since: int = 0) -> list[str]:
        return [line for line in self.log(since).splitlines() if " request request_id=" in line]

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self) -> int:
        """End it as an operator would; its exit status. Killed with its workers if it does not end in time."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)  # writes down where it hangs
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            raise AssertionError(f"the proxy did not end in {STOP_WITHIN_S} s:\n{self.log()}") from None

    def _wait_until_alive(self) -> None:
        until = time.monotonic() + READY_WITHIN_S
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise AssertionError(f"the proxy ended with {self.process.returncode}:\n{self.log()}")
            try:
                httpx.get(f"{self.url}/healthz", trust_env=False, timeout=5)
                return
            except httpx.TransportError:
                time.sleep(0.05)
        raise AssertionError(f"the proxy did not answer in {READY_WITHIN_S} s:\n{self.log()}")


class ProxyFarm:
    """Proxies by their settings, each started when it is first asked for.

    MOST_AT_ONCE of them run: the one that was not asked for longest ends for a new one, the others at the end.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._proxies: dict[str, ProxyProcess] = {}  # the last that was asked for is the last
        self._ended: list[ProxyProcess] = []

    def proxy(self, config: dict[str, Any]) -> ProxyProcess:
        name = json.dumps(config, sort_keys=True, default=str)
        proxy = self._proxies.pop(name, None)
        if proxy is None or proxy.process.poll() is not None:
            self._end_all_but(MOST_AT_ONCE - 1)
            proxy = ProxyProcess.start(config, self._folder)
        self._proxies[name] = proxy
        return proxy

    def _end_all_but(self, most: int) -> None:
        while len(self._proxies) > most:
            oldest = self._proxies.pop(next(iter(self._proxies)))
            oldest.process.terminate()
            self._ended.append(oldest)

    def __enter__(self) -> "ProxyFarm":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end_all_but(0)
        for proxy in self._ended:
            proxy.stop()


def launch(
    config: dict[str, Any], folder: Path, port: int, environ: dict[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start gunicorn with a config file written for it; the log goes to `PORT.log` beside the file."""
    config = {**config, "server": {"bind": f"127.0.0.1:{port}", **config.get("server", {})}}
    file = folder / f"{port}.yaml"
    file.write_text(yaml.safe_dump(config))
    with (folder / f"{port}.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "wsgi:app"],
            cwd=ROOT,
            env={**os.environ, "PYTHONFAULTHANDLER": "1", **_places(file, folder), **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _places(file: Path, folder: Path) -> dict[str, str]:
    return {"LLM_PROXY_CONFIG": str(file), "XDG_RUNTIME_DIR": str(folder)}


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
