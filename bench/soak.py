"""Puts a proxy under load with hostile callers, reloads and kills for minutes or hours: what must hold, must hold.

Run from the root: `make soak`, or `python -m bench.soak --minutes 10 --streams 300`. Prints the table, writes it down,
and exits with 1 on a broken rule. How: README.md beside.
"""

import os
import secrets
import signal
import sys
import tempfile
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import click

from bench.soaking.report import facts, write
from bench.soaking.run import DRAIN_S, Soak
from bench.soaking.scene import Scene
from bench.soaking.table import Found, rows
from bench.speed.machine import many_descriptors
from bench.token_proofs.proxies import processes_in, running
from bench.token_proofs.report import markdown
from bench.token_proofs.rows import Lab, Row
from tests.support.sandbox_client import SandboxClient

WORKERS = 2
TOKEN_LIFETIME_S = 60.0
FULL_MINUTES, FULL_STREAMS = 10, 300


@click.command()
@click.option("--minutes", default=float(FULL_MINUTES), show_default=True, help="Of load; 240 is a night.")
@click.option("--streams", default=FULL_STREAMS, show_default=True, help="At a time.")
@click.option("--seed", type=int, help="Of whatever is drawn; told in the results.  [default: a new one]")
@click.option("--out", type=click.Path(path_type=Path), default=Path("bench/results"), help="Folder for the results.")
def main(minutes: float, streams: int, seed: int | None, out: Path) -> None:
    """Run, print the table, write it down."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    many_descriptors()
    seed = secrets.randbelow(10**6) if seed is None else seed
    began = datetime.now(UTC)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        os.environ["SOAK_FOLDER"] = folder  # all children inherit it, and are found by it in the end
        try:
            found = _soak(Lab(Path(folder), quick=minutes < FULL_MINUTES), minutes, streams, seed)
        finally:
            left = _left_behind(Path(folder))
    table = [*rows(found, has_verdict=minutes >= FULL_MINUTES), *left]
    click.echo(markdown(table))
    is_full = minutes >= FULL_MINUTES and streams >= FULL_STREAMS
    about = facts(began, f"{minutes:g} minutes, {streams} streams at a time, seed {seed}")
    for path in write(out, f"{began:%Y-%m-%d}-soak{'' if is_full else '-short'}", about, table):
        click.echo(f"written: {path}", err=True)
    sys.exit(0 if all(row.passed for row in table) else 1)


def _soak(lab: Lab, minutes: float, streams: int, seed: int) -> Found:
    with SandboxClient.start(TOKEN_LIFETIME_S) as sandbox:
        scene, folder = Scene(sandbox), lab.place("proxy")
        # As many as there are streams: a worker that has to carry nearly all is full.
        config = scene.config(workers=WORKERS, drain_s=DRAIN_S, requests_most=streams)
        with running(config, folder) as proxy:
            return Soak(lab, sandbox, scene, proxy, folder / f"{proxy.port}.log", seed).run(60 * minutes, streams)


def _left_behind(folder: Path) -> list[Row]:
    """A row where processes are left over; they are killed."""
    pids = processes_in(folder)
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return [Row("left behind", "processes of this run that still live", f"{len(pids)}", "0", False)] if pids else []


if __name__ == "__main__":
    main()
