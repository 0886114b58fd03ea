"""The table of a soak with the date and the machine, as people and programs read it."""

import json
import os
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.machine_facts import Facts, cpu_model, machine_facts
from bench.token_proofs.report import markdown
from bench.token_proofs.rows import Row


def facts(began: datetime, length: str) -> Facts:
    return machine_facts(began, {"length": length, "cpu": f"{cpu_model()}, {os.cpu_count()} cores"})


def write(folder: Path, name: str, about: Facts, rows: list[Row]) -> list[Path]:
    """Write NAME.md and NAME.json; the paths of both."""
    folder.mkdir(parents=True, exist_ok=True)
    said = "\n".join(f"- {fact}: {value}" for fact, value in about.items())
    document: dict[str, Any] = {**about, "rows": [asdict(row) for row in rows]}
    paths = [folder / f"{name}.md", folder / f"{name}.json"]
    paths[0].write_text(f"# Soak\n\n{said}\n\n{markdown(rows)}\n")
    paths[1].write_text(json.dumps(document, indent=1) + "\n")
    return paths
