"""What a reader must know to judge the comparison's figures."""

import os
from datetime import datetime

from bench.machine_facts import Facts, cpu_model, machine_facts


def load_average() -> float:
    """Of the last minute: what else the machine had to do when the bench began."""
    return os.getloadavg()[0]


def facts(began: datetime, *, runs: int, quick: bool, busy: float, versions: dict[str, str]) -> Facts:
    cpus = len(os.sched_getaffinity(0))
    own = {
        "length": f"{'quick' if quick else 'full'}, {runs} run{'s' if runs > 1 else ''}",
        "cpu": f"{cpu_model()}, {cpus} cores, {'the proxy has one to itself' if cpus > 1 else 'shared by all'}",
        "load average before": f"{busy:.2f}",
    }
    return machine_facts(began, own) | {name: text for name, text in versions.items() if text}
