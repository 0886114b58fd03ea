"""The machine as the bench uses it: which process runs on which CPU, and how many files a process may open."""

import os
import resource
from contextlib import suppress

_DESCRIPTORS = 65_536


def pin(cpu: int | None) -> None:
    """Keep this process, and what it will start, on one CPU; None: wherever the system likes."""
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})


def many_descriptors() -> None:
    """Raise the limit of open files as far as this user may; children inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # only root may go beyond the hard limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(hard, _DESCRIPTORS), max(hard, _DESCRIPTORS)))
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
