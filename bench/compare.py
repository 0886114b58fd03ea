"""Measures our proxy and its peers under the same load and prints one table; exits with 1 where a figure is too high.

Run from the root: `python -m bench.compare`, or `make bench`, which sets the peers up first. How: README.md beside.
"""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import click

from bench.speed.acceptance import Verdict, judge
from bench.speed.facts import facts, load_average
from bench.speed.fleet import Fleet
from bench.speed.lab import Lab
from bench.speed.machine import many_descriptors
from bench.speed.medians import Runs, medians
from bench.speed.processes import ROOT, left_behind
from bench.speed.report import Report
from bench.speed.rows import DIRECT, OURS, PEERS, ROWS, Row
from bench.speed.targets import missing_venv, venv_python

_ROW_NAMES = [row.name for row in ROWS]


@dataclass(frozen=True)
class Plan:
    """What is measured how often."""

    rows: list[Row]
    peers: list[str]
    runs: int
    quick: bool

    @property
    def suffix(self) -> str:
        """Of the results' names: a full bench has none."""
        is_part = len(self.rows) < len(ROWS) or len(self.peers) < len(PEERS)
        return ("-quick" if self.quick else "") + ("-part" if is_part else "")

    def targets(self, row: Row, run: int) -> list[str]:
        """Those of the row that were asked for, the load's own baseline first."""
        once = row.once if run == 0 and not self.quick else ()
        wanted = {*row.targets, *once} & {DIRECT, OURS, *self.peers}
        return [name for name in (DIRECT, OURS, *PEERS) if name in wanted]


@click.command()
@click.option("--quick", is_flag=True, help="One run of short phases: a few minutes, and figures to be doubted.")
@click.option("--runs", type=click.IntRange(min=1), help="How often all is measured.  [default: 5, or 1 if quick]")
@click.option("--only", default="", help=f"Some rows alone: {','.join(_ROW_NAMES)}.")
@click.option("--peers", default=",".join(PEERS), show_default=True, help="Who runs beside us; '' for nobody.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("bench/results"), help="Folder for the results.")
def main(quick: bool, runs: int | None, only: str, peers: str, out: Path) -> None:
    """Measure, print the table, write it down."""
    names = _names(only, _ROW_NAMES) or _ROW_NAMES
    plan = Plan([row for row in ROWS if row.name in names], _names(peers, PEERS), runs or (1 if quick else 5), quick)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    many_descriptors()
    report = _measure(plan)
    click.echo(report.text())
    written = report.write(out, f"-compare{plan.suffix}")
    for path in [*written, *_draw(written[-1])]:
        click.echo(f"written: {path}", err=True)
    sys.exit(0 if report.passed else 1)


def _names(text: str, known: Collection[str]) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := set(names) - set(known):
        raise click.BadParameter(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    return names


def _measure(plan: Plan) -> Report:
    began, busy = datetime.now(UTC), load_average()
    with tempfile.TemporaryDirectory(prefix="bench-compare-") as folder:
        try:
            runs, versions = _run_all(Path(folder), plan)
        finally:
            left = _end_what_is_left(Path(folder))
    figures = medians(runs)
    verdicts = judge(figures, [row.name for row in plan.rows], plan.peers) + left
    about = facts(began, runs=plan.runs, quick=plan.quick, busy=busy, versions=versions)
    return Report(began, about, figures, runs, verdicts, quick=plan.quick)


def _run_all(folder: Path, plan: Plan) -> tuple[Runs, dict[str, str]]:
    """The figures of each run: row → target → figures. All targets have their turn in a row before the next begins."""
    lab = Lab(folder)
    fleet = Fleet(lab, (DIRECT, OURS, *plan.peers))
    runs: Runs = []
    try:
        versions = fleet.versions()
        for run in range(plan.runs):
            runs.append({})
            for row in plan.rows:
                runs[-1][row.name] = {}
                for name in plan.targets(row, run):
                    lab.say(f"run {run + 1} of {plan.runs}: {row.name}, {name}")
                    runs[-1][row.name][name] = fleet.measure(row, name, quick=plan.quick)
        return runs, versions
    finally:
        fleet.close()
        lab.close()


def _end_what_is_left(folder: Path) -> list[Verdict]:
    """A verdict where processes are left over, which is a fault of the bench; they are killed."""
    pids = left_behind(folder)
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return [Verdict("processes left behind", str(len(pids)), "0", False)] if pids else []


def _draw(results: Path) -> list[str]:
    """The charts of the results, where matplotlib was installed for it."""
    if missing_venv("charts"):
        return []
    argv = [str(venv_python("charts")), "-m", "bench.speed.charts", str(results)]
    return subprocess.run(argv, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()


if __name__ == "__main__":
    main()
