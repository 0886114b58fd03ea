"""Systems that cannot share our environment: each runs in one of its own under .venv-clients, which `make test` makes.

`run_client` runs a script of tests/compatibility/clients to its end and gets what it found; `Server` is a process that
stays and answers. What is tried with them is left to the tests of tests/compatibility.
"""

import json
import os
import signal
import subprocess
import time
from contextlib import suppress
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any, Self

import httpx

from tests.support.proxy_process import ROOT, ProxyFarm
from tests.support.sandbox_client import SandboxClient

SCRIPTS = ROOT / "tests" / "compatibility" / "clients"
RUN_WITHIN_S = 90.0
START_WITHIN_S = 90.0
STOP_WITHIN_S = 10.0

Results = dict[str, dict[str, Any]]


def python_of(name: str) -> Path:
    """The interpreter of a client's environment."""
    python = ROOT / ".venv-clients" / name / "bin" / "python"
    assert python.exists(), f"{python} is not there: `make test` makes it"
    return python


def version_of(name: str, distribution: str) -> str:
    """The release of a distribution in that environment."""
    folders = python_of(name).parents[1].glob("lib/python3*/site-packages")
    found = Distribution.discover(name=distribution, path=[str(folder) for folder in folders])
    return next(iter(found)).version


def run_client(
    name: str, farm: ProxyFarm, sandbox: SandboxClient, folder: Path, environ: dict[str, str] | None = None
) -> Results:
    """What the script NAME_client.py found of each feature: {feature: {"passed": bool, "why": str}}."""
    proxy = farm.proxy(sandbox.config(server={"worker_class": "gevent"}))  # the one that most tests ask
    done = subprocess.run(
        [str(python_of(name)), str(_script(name, "client")), proxy.api, sandbox.url],
        cwd=folder,
        env={**_environ(folder), **(environ or {})},
        capture_output=True,
        text=True,
        timeout=RUN_WITHIN_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))  # before it stands what the client itself likes to print


def _script(name: str, kind: str) -> Path:
    return SCRIPTS / f"{name.replace('-', '_')}_{kind}.py"


def _environ(folder: Path) -> dict[str, str]:
    """Nothing of ours but where programs are; what a client caches and writes stays in the test's folder."""
    return {"PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8", "NO_PROXY": "*", "no_proxy": "*"}


class Server:
    """A foreign server as a process in a group of its own; its log is in the folder."""

    def __init__(self, name: str, arguments: list[str], folder: Path, environ: dict[str, str] | None = None) -> None:
        self._log_file = folder / f"{name}.log"
        with self._log_file.open("wb") as log:
            self._process = subprocess.Popen(
                [str(python_of(name)), *arguments],
                cwd=folder,
                env={**_environ(folder), **(environ or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @classmethod
    def of_script(cls, name: str, arguments: list[str], folder: Path, environ: dict[str, str] | None = None) -> Self:
        """The server that the script NAME_server.py starts."""
        return cls(name, [str(_script(name, "server")), *arguments], folder, environ)

    def log(self) -> str:
        return self._log_file.read_text(errors="replace")

    def wait_until_answers(self, url: str, headers: dict[str, str] | None = None) -> None:
        """Until a GET of that URL gets a 200."""
        until = time.monotonic() + START_WITHIN_S
        while time.monotonic() < until:
            assert self._process.poll() is None, f"it ended:\n{self.log()}"
            with suppress(httpx.TransportError):
                if httpx.get(url, headers=headers, trust_env=False, timeout=5).status_code == 200:
                    return
            time.sleep(0.1)
        raise AssertionError(f"no 200 from {url} in {START_WITHIN_S} s:\n{self.log()}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_WITHIN_S)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # whatever it has started
        self._process.wait()
