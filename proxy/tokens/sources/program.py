"""One run of a program, with a deadline for the whole of it; used by the source that asks a program for a token.

Plain `subprocess`, which gevent's patches make cooperative. Nothing of the program's group outlives its run.
"""

import errno
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO

from proxy.tokens.sources.base import TokenFetchError

RUN_DEADLINE_S = 10.0
OUTPUT_MOST_BYTES = 1024 * 1024
_LOOK_EVERY_S = 0.05  # whether the program has ended, while something else keeps its output open
_REAP_WITHIN_S = 1.0
# It will be no better in a moment: a mistake in the configuration or in the installation.
_NOT_RUNNABLE = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ENOEXEC)


class Program:
    """A program with its arguments, run without a shell. One run at a time."""

    def __init__(self, argv: Sequence[str]) -> None:
        self._argv = tuple(argv)
        self._lock = threading.Lock()  # guards the two below: close() must see a program that has just started
        self._running: subprocess.Popen[bytes] | None = None
        self._closed = False

    def run(self, env: Mapping[str, str]) -> bytes:
        """What it printed, at most 1 MiB; `env` is added to the environment. Its standard error is thrown away, as it
        may quote a secret.

        Raises TokenFetchError: it cannot be started, has not ended within 10 s, or has ended with a code other than 0.
        """
        deadline = time.monotonic() + RUN_DEADLINE_S
        with self._lock:
            if self._closed:
                raise TokenFetchError("command: closed")
            process = self._running = self._start(env)
        stdout: IO[bytes] = process.stdout  # type: ignore[assignment]  # a pipe, as we have asked for one
        try:
            output = _read_output(process, stdout, deadline)
            code = process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise TokenFetchError("command: not done within the deadline") from None
        finally:
            with self._lock:
                self._running = None
                _kill_group(process)
            stdout.close()
            # One that hangs in the kernel must not hold up the fetches after it.
            with suppress(subprocess.TimeoutExpired):
                process.wait(_REAP_WITHIN_S)
        if code != 0:
            raise TokenFetchError(f"command: {_ending(code)}")
        return output

    def close(self) -> None:
        """Kill the program that may be running, and start none any more."""
        with self._lock:
            self._closed = True
            if self._running is not None:
                _kill_group(self._running)

    def _start(self, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(  # noqa: S603  # the operator's own argv, from the config file
                self._argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **env},
                start_new_session=True,  # a group to kill as one, and no terminal to ask a person at
            )
        except OSError as error:
            reason, refused = error.strerror or type(error).__name__, error.errno in _NOT_RUNNABLE
        except ValueError:  # a NUL in an argument or a variable, or a name with "="; not chained: it may quote one
            reason, refused = "an argument or a variable that no program can be given", True
        raise TokenFetchError(f"command: {self._argv[0]} cannot be started: {reason}", refused=refused)


def _read_output(process: subprocess.Popen[bytes], stdout: IO[bytes], deadline: float) -> bytes:
    """All up to the end of the output, or of the program: what it has started may keep its output open for longer."""
    output = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(stdout, selectors.EVENT_READ)
        while (left_s := deadline - time.monotonic()) > 0:
            ended = process.poll() is not None  # before the look for output: its last words come before its end
            if selector.select(0 if ended else min(left_s, _LOOK_EVERY_S)):
                piece = os.read(stdout.fileno(), 65536)
                output += piece
                if len(output) > OUTPUT_MOST_BYTES:
                    raise TokenFetchError(f"command: output of more than {OUTPUT_MOST_BYTES} bytes")
                if not piece:
                    return bytes(output)
            elif ended:
                return bytes(output)
    raise subprocess.TimeoutExpired(process.args, RUN_DEADLINE_S)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(OSError):  # nothing is left of it, or what is left runs as another user
        os.killpg(process.pid, signal.SIGKILL)


def _ending(code: int) -> str:
    if code > 0:
        return f"ended with exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:  # a real-time signal
        return f"killed by signal {-code}"
