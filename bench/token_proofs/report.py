"""The table as people and programs read it, with the date and the machine that it was measured on."""

import json
import os
import platform
import subprocess
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.token_proofs.rows import Row
from tests.support.proxy_process import ROOT

_PACKAGES = ("gunicorn", "gevent", "flask", "httpx", "httpx2", "openai", "filelock", "redis", "loguru")
Facts = dict[str, str]


def facts(began: datetime, *, quick: bool) -> Facts:
    """When and on what: what a reader must know to judge a figure."""
    return {
        "date": began.strftime("%Y-%m-%d %H:%M UTC"),
        "took": f"{(datetime.now(UTC) - began).total_seconds() / 60:.1f} minutes",
        "length": "quick" if quick else "full",
        "cpu": f"{_cpu_model()}, {os.cpu_count()} cores",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": ", ".join(f"{name} {version(name)}" for name in _PACKAGES),
        "commit": _commit(),
    }


def markdown(rows: list[Row]) -> str:
    lines = ["| # | measure | measured | required | |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        cells = [row.name, row.what, row.measured, row.required, "pass" if row.passed else "**FAIL**"]
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines)


def write(folder: Path, name: str, rows: list[Row], about: Facts) -> list[Path]:
    """Write NAME.md and NAME.json; the paths of both."""
    folder.mkdir(parents=True, exist_ok=True)
    text = "\n".join(["# Proofs of the token holder", "", *(f"- {fact}: {value}" for fact, value in about.items()), ""])
    document: dict[str, Any] = {**about, "rows": [asdict(row) for row in rows]}
    paths = [folder / f"{name}.md", folder / f"{name}.json"]
    paths[0].write_text(f"{text}\n{markdown(rows)}\n")
    paths[1].write_text(json.dumps(document, indent=1) + "\n")
    return paths


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
