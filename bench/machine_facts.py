"""When and on what a bench ran: what a reader must know to judge a figure. Each bench adds facts of its own."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

Facts = dict[str, str]


def machine_facts(began: datetime, own: Facts) -> Facts:
    """The date, then the bench's own facts, then the machine and the commit."""
    return {
        "date": began.strftime("%Y-%m-%d %H:%M UTC"),
        "took": f"{(datetime.now(UTC) - began).total_seconds() / 60:.1f} minutes",
        **own,
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "commit": _commit(),
    }


def cpu_model() -> str:
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
    folder = Path(__file__).parent
    return subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()
