"""Start the sandbox as a child process and stop it. gunicorn's master and the tests call this.

Standard library only, and no subprocess: where gevent has patched it, Popen watches its children through the
event loop and never hears of one that gunicorn's master reaped first (it waits for any child). os.posix_spawn
and waitpid with WNOHANG behave alike in both worlds.
"""

import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import IO

READY_WITHIN_S = 10.0
STOP_WITHIN_S = 3.0
_LOOK_EVERY_S = 0.01
_ROOT = Path(__file__).resolve().parent.parent


class SandboxError(Exception):
    """The sandbox did not start; the message is the last line that it wrote."""


class SandboxProcess:
    """A running sandbox. It ends with stop(), or by itself when this process ends, even by SIGKILL."""

    def __init__(self, pid: int, stdin: int, complaints: IO[bytes]) -> None:
        self.url = ""
        self._pid = pid
        self._stdin = stdin
        self._complaints = complaints
        self._last_complaints = ""
        self._starter = os.getpid()
        self._is_stopped = False
        self._is_reaped = False

    @classmethod
    def start(
        cls, bind: str = "127.0.0.1:0", token_lifetime_s: float = 300.0, *, single_active: bool = False
    ) -> "SandboxProcess":
        """Start a sandbox and wait until it listens (at most 10 s); SandboxError if it does not."""
        stdout, child_stdout = os.pipe()
        options = ["--bind", bind, "--token-lifetime-s", str(token_lifetime_s)]
        process = cls._spawn([*options, *(["--single-active"] if single_active else [])], child_stdout)
        try:
            process.url = process._read_url(stdout)
        except BaseException:
            process.stop()
            raise
        finally:
            os.close(stdout)
        return process

    @classmethod
    def _spawn(cls, options: list[str], child_stdout: int) -> "SandboxProcess":
        child_stdin, stdin = os.pipe()
        # A file, not a pipe: nobody would read a pipe later on, and a full one would block the child.
        complaints = tempfile.TemporaryFile()  # noqa: SIM115
        streams = [child_stdin, child_stdout, complaints.fileno()]
        paths = [str(_ROOT), os.environ.get("PYTHONPATH", "")]
        # -P: a folder named sandbox in the caller's working directory must not be taken for this package.
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-P", "-m", "sandbox", "--exit-with-stdin", *options],
            {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            file_actions=[(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(streams)],
            setsid=True,
        )
        os.close(child_stdin)
        os.close(child_stdout)
        return cls(pid, stdin, complaints)

    def complaints(self) -> str:
        """Get what the sandbox wrote to stderr so far: nothing, unless it has a bug."""
        if not self._complaints.closed:
            size = os.fstat(self._complaints.fileno()).st_size
            self._last_complaints = os.pread(self._complaints.fileno(), size, 0).decode(errors="replace")
        return self._last_complaints

    def stop(self) -> None:
        """End the sandbox, by SIGKILL after 3 s; does nothing the second time, or in a forked child."""
        if self._is_stopped or os.getpid() != self._starter:
            return
        self._is_stopped = True
        # A forked worker may hold a copy of the pipe, so its end alone is not enough while workers run.
        os.close(self._stdin)
        for number in (signal.SIGTERM, signal.SIGKILL):
            if not self._has_ended():
                os.kill(self._pid, number)
                self._wait(STOP_WITHIN_S)
        self.complaints()
        self._complaints.close()

    def _read_url(self, stdout: int) -> str:
        """Read the line that says where the child listens; SandboxError if it ends before, or time is up."""
        line = _read_line(stdout)
        if line.endswith(b"\n"):
            return str(json.loads(line)["url"])
        complaint = self.complaints().rstrip().rpartition("\n")[2]
        raise SandboxError(complaint.removeprefix("sandbox: ") or "the sandbox did not answer in time")

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._has_ended() and time.monotonic() < until:
            time.sleep(_LOOK_EVERY_S)

    def _has_ended(self) -> bool:
        if not self._is_reaped:
            try:
                self._is_reaped = os.waitpid(self._pid, os.WNOHANG)[0] == self._pid
            except ChildProcessError:  # another part of this process, such as gunicorn's arbiter, reaped it
                self._is_reaped = True
        return self._is_reaped

    def __enter__(self) -> "SandboxProcess":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


def _read_line(stdout: int) -> bytes:
    """Read until a line is whole, the child has closed its end, or time is up."""
    os.set_blocking(stdout, False)
    line, until = b"", time.monotonic() + READY_WITHIN_S
    while not line.endswith(b"\n") and time.monotonic() < until:
        try:
            piece = os.read(stdout, 4096)
        except BlockingIOError:
            time.sleep(_LOOK_EVERY_S)
            continue
        if not piece:
            break
        line += piece
    return line
