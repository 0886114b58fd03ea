"""Under gevent other code reads than in threads. Its patches must come before all else: in a process of their own."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.socket_io import BlockingReader, socket_reader

_RUN = "from gevent import monkey; monkey.patch_all(); import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"
_HERE = Path(__file__).parent
# Of the others too that read by it.
_UPSTREAMS = ("answer_body", "connection", "transport", "tunnel")
_FILES = ("socket_io_cases.py", *(f"upstreams/test_{name}.py" for name in _UPSTREAMS))


def test_threads_read_as_usual() -> None:
    sock, peer = socket.socketpair()
    with sock, peer:
        assert isinstance(socket_reader(sock), BlockingReader)


def test_all_that_holds_with_threads_holds_with_greenlets(pytestconfig: pytest.Config) -> None:
    files = [str(_HERE / name) for name in _FILES]
    command = [sys.executable, "-c", _RUN, "-q", "-p", "no:cacheprovider", *files]
    run = subprocess.run(command, cwd=pytestconfig.rootpath, capture_output=True, text=True, timeout=100)
    assert run.returncode == 0, run.stdout + run.stderr
