"""The table as people and programs read it, with the date and the machine that it was measured on."""

import json
import os
from dataclasses import asdict
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.machine_facts import Facts, cpu_model, machine_facts
from bench.token_proofs.rows import Row

_PACKAGES = ("gunicorn", "gevent", "flask", "httpx", "httpx2", "openai", "filelock", "redis", "loguru")


def facts(began: datetime, *, quick: bool) -> Facts:
    """When and on what: what a reader must know to judge a figure."""
    own = {"length": "quick" if quick else "full", "cpu": f"{cpu_model()}, {os.cpu_count()} cores"}
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    return machine_facts(began, own) | {"packages": packages}


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
