"""Processes that the bench starts: each with a log of its own, on the CPU that it is given, and ended in every case.

A child ends with the bench even if that is killed (PR_SET_PDEATHSIG), and carries the bench's folder in its
environment, by which `left_behind` finds what is still there at the end.
"""

import ctypes
import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from bench.speed.machine import pin

ROOT = Path(__file__).resolve().parents[2]
FOLDER_VARIABLE = "BENCH_COMPARE_FOLDER"
_STOP_WITHIN_S = 20.0
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class NotStarted(Exception):
    """A process ended, or did not answer in time; the text has the end of its log."""


class Child:
    """A running process with its children."""

    def __init__(
        self, argv: Sequence[str], log: Path, cpu: int | None, environ: Mapping[str, str] | None = None
    ) -> None:
        """`argv` runs in the root of the repository; what it says goes to the end of the log."""
        self._log = log

        def prepare() -> None:  # in the child, before it becomes the program
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            pin(cpu)

        with log.open("ab") as output:
            self._process = subprocess.Popen(
                argv,
                cwd=ROOT,
                env={**os.environ, FOLDER_VARIABLE: str(log.parent), **(environ or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=prepare,
            )
        self.pid = self._process.pid

    def wait_until_answers(self, port: int, method: str, path: str, key: str, body: str, within_s: float) -> None:
        """Return once the request is answered with 200. Raises NotStarted."""
        until = time.monotonic() + within_s
        seen = "nothing"
        while time.monotonic() < until and self._process.poll() is None:
            with suppress(OSError, http.client.HTTPException):
                status = ask_once(port, method, path, key, body)
                if status == 200:
                    return
                seen = str(status)
            time.sleep(0.1)
        raise NotStarted(f"{seen} came on port {port}; its log ends with: {self._tail()}")

    def wait(self, within_s: float) -> int | None:
        """Its exit status, or None where it still runs then."""
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(within_s)
        return None

    def stop(self) -> None:
        """SIGTERM, and SIGKILL to all of its group where it does not end in time."""
        if self._process.poll() is None:
            self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_WITHIN_S)
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def _tail(self) -> str:
        return self._log.read_text(errors="replace")[-1500:]


def ask_once(port: int, method: str, path: str, key: str, body: str) -> int:
    """The status of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    fields = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    try:
        connection.request(method, path, body or None, fields)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def left_behind(folder: Path) -> list[int]:
    """The living processes that were started with that folder in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):
                if f"{FOLDER_VARIABLE}={folder}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found
