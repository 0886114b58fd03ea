"""When and on what a bench ran: what a reader must know to judge a figure."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from bench.speed.processes import ROOT

Facts = dict[str, str]


def load_average() -> float:
    """Of the last minute: what else the machine had to do when the bench began."""
    return os.getloadavg()[0]


def facts(began: datetime, *, runs: int, quick: bool, busy: float, versions: dict[str, str]) -> Facts:
    cpus = len(os.sched_getaffinity(0))
    return {
        "date": began.strftime("%Y-%m-%d %H:%M UTC"),
        "took": f"{(datetime.now(UTC) - began).total_seconds() / 60:.1f} minutes",
        "length": f"{'quick' if quick else 'full'}, {runs} run{'s' if runs > 1 else ''}",
        "cpu": f"{_cpu_model()}, {cpus} cores, {'the proxy has one to itself' if cpus > 1 else 'shared by all'}",
        "load average before": f"{busy:.2f}",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "commit": _commit(),
        **{name: text for name, text in versions.items() if text},
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(": ")[2]
    return platform.machine()


def _commit() -> str:
    """The commit that was measured, and whether files differ from it."""
    try:
        commit = _git("rev-parse", "--short", "HEAD")
        return f"{commit} with changes" if _git("status", "--porcelain") else commit
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
