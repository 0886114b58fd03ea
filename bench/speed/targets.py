"""What the load is put on: a target starts a server in front of the lab's upstream and stops it again."""

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.speed.lab import Lab
from bench.speed.processes import Child, free_port
from bench.speed.requests import CHAT_PATH, PEER_KEY

_HELLO = '{"model": "small", "messages": [{"role": "user", "content": "Hello"}]}'
_BIN = Path(__file__).resolve().parents[2] / ".venv-bench"


@dataclass(frozen=True)
class Command:
    """How to start a server that listens on the port it was told."""

    argv: list[str]
    environ: dict[str, str]


@dataclass(frozen=True)
class Target:
    """`command` is given the lab and a port; without one (direct) the load goes to the upstream itself."""

    name: str
    title: str
    command: Callable[[Lab, int], Command] | None
    missing: Callable[[], str] = lambda: ""  # why it cannot be measured here; empty: it can
    versions: Callable[[], str] = lambda: ""
    key: str = PEER_KEY  # that callers send
    tls_prefix: str = ""  # in front of /v1 where the upstream is to be asked over TLS
    start_within_s: float = 30.0


class Server:
    """A target that runs; `pid` is the process to meter, None where there is none."""

    def __init__(self, target: Target, lab: Lab) -> None:
        """Start it and wait until a chat request through it is answered. Raises NotStarted."""
        self.target = target
        self.pid: int | None = None
        self.port = lab.upstream_port
        self.used = False  # by a row, so its memory is no longer that of a new one
        self._child: Child | None = None
        if target.command is None:
            return
        self.port = free_port()
        command = target.command(lab, self.port)
        self._child = Child(command.argv, lab.folder / f"{target.name}.log", lab.proxy_cpu, command.environ)
        self.pid = self._child.pid
        try:
            self._child.wait_until_answers(
                self.port, "POST", CHAT_PATH, target.key, _HELLO, within_s=target.start_within_s
            )
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        if self._child is not None:
            self._child.stop()


def venv_python(name: str) -> Path:
    """The interpreter of a peer's venv, which `make bench` sets up from bench/peers/NAME.txt."""
    return _BIN / name / "bin" / "python"


def missing_venv(name: str) -> str:
    return "" if (_BIN / f"{name}.stamp").exists() else f"not here: `make bench` installs it into {_BIN.name}/{name}"


def venv_versions(name: str, *packages: str) -> str:
    """The packages with their versions, as that venv has them."""
    code = "import sys, importlib.metadata as m; print(*(f'{p} {m.version(p)}' for p in sys.argv[1:]), sep=', ')"
    said = subprocess.run([venv_python(name), "-c", code, *packages], capture_output=True, text=True, check=True)
    return said.stdout.strip()
