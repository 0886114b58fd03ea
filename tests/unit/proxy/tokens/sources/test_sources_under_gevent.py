"""The same tests with gevent's patches, which must come before all else and so need a process of their own."""

import subprocess
import sys
from pathlib import Path

import pytest

_RUN = "from gevent import monkey; monkey.patch_all(); import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"
_HERE = Path(__file__).parent
_FILES = ("test_program.py", "test_python.py", "test_deadline.py", "test_endpoint.py", "test_endpoint_deadline.py")


def test_all_that_holds_with_threads_holds_with_greenlets(pytestconfig: pytest.Config) -> None:
    files = [str(_HERE / name) for name in _FILES]
    command = [sys.executable, "-c", _RUN, "-q", "-p", "no:cacheprovider", *files]
    run = subprocess.run(command, cwd=pytestconfig.rootpath, capture_output=True, text=True, timeout=100)
    assert run.returncode == 0, run.stdout + run.stderr
