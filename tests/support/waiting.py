"""Waiting for what another process does: with a limit, so that a test fails and does not hang."""

import time
from collections.abc import Callable


def wait_for(holds: Callable[[], bool], within_s: float = 5.0) -> None:
    """Return as soon as it holds; an AssertionError when it does not in time."""
    until = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < until, f"did not come true in {within_s} s"
        time.sleep(0.1)
