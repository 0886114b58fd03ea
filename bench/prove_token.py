"""Measures every row of the token holder's proof table with real processes, prints it, and exits with 1 on any FAIL.

Run from the root: `python -m bench.prove_token`. What each row does and what of it is simulated: README.md beside.
"""

import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

import click
from loguru import logger

from bench.token_proofs import (
    cold_start,
    expired_tokens,
    fetch_rate,
    hot_path,
    leaks,
    lifecycles,
    outages,
    refused_tokens,
    renewal_latency,
    report,
    two_hosts,
)
from bench.token_proofs.proxies import processes_in
from bench.token_proofs.rows import Lab, Row

Proof: TypeAlias = tuple[str, Callable[[Lab], Row]]
Lane: TypeAlias = tuple[Proof, ...]

NAMES = ("P1", "P2", "P3", "P4", "P5", "P6", "P7", "P8", "P9", "two hosts", "hot path")
# One stage after the other; the lanes of a stage run side by side, each of them one proof after the other. What is
# measured in milliseconds or needs all of the machine has a stage of its own.
STAGES: tuple[tuple[Lane, ...], ...] = (
    ((("hot path", hot_path.hot_path), ("P1", fetch_rate.simulated), ("P4", outages.simulated)),),
    ((("P3", renewal_latency.renewal_latency),),),
    (
        (("P1", fetch_rate.real),),
        (("P4", outages.long),),
        (("P4", outages.short), ("P7", refused_tokens.always_refused)),
        (("two hosts", two_hosts.two_hosts),),
        (("P8", leaks.leaks), ("P2", expired_tokens.drawn)),
    ),
    ((("P2", expired_tokens.over_http), ("P6", refused_tokens.revoked)),),
    ((("P5", cold_start.slow_issuer), ("P5", cold_start.dead_issuer), ("P9", lifecycles.lifecycles)),),
)


@click.command()
@click.option("--quick", is_flag=True, help="Every row in a few minutes: shorter lives, fewer repeats.")
@click.option("--only", default="", help="Some rows alone, by their names: P4,P6 or 'two hosts'.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("bench/results"), help="Folder for the results.")
def main(quick: bool, only: str, out: Path) -> None:
    """Measure, print the table, write it down."""
    names = _names(only)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    logger.remove()  # the holders in this process say little that the rows don't
    began, rows = datetime.now(UTC), []
    with tempfile.TemporaryDirectory(prefix="prove-token-") as folder:
        os.environ["PROVE_TOKEN_FOLDER"] = folder  # all children inherit it, and are found by it in the end
        lab = Lab(Path(folder), quick=quick)
        try:
            for stage in STAGES:
                rows += _run_stage(stage, names, lab)
        finally:
            rows += _left_behind(Path(folder))
    rows.sort(key=lambda row: NAMES.index(row.name) if row.name in NAMES else len(NAMES))
    about = report.facts(began, quick=quick)
    click.echo(report.markdown(rows))
    suffix = ("-quick" if quick else "") + ("-part" if only else "")
    for path in report.write(out, f"{began:%Y-%m-%d}-prove-token{suffix}", rows, about):
        click.echo(f"written: {path}", err=True)
    sys.exit(0 if all(row.passed for row in rows) else 1)


def _names(only: str) -> set[str]:
    names = {name.strip() for name in only.split(",") if name.strip()} or set(NAMES)
    if unknown := names - set(NAMES):
        raise click.BadParameter(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(NAMES)}")
    return names


def _run_stage(stage: tuple[Lane, ...], names: set[str], lab: Lab) -> list[Row]:
    rows: list[Row] = []

    def run(lane: Lane) -> None:
        for name, proof in lane:
            if name in names:
                rows.append(_measure(name, proof, lab))

    # Daemons: an interrupt does not wait for them, and `_left_behind` ends what they have started.
    threads = [threading.Thread(target=run, args=(lane,), daemon=True) for lane in stage]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return rows


def _measure(name: str, proof: Callable[[Lab], Row], lab: Lab) -> Row:
    """The proof's row; one that could not be measured has failed."""
    what = f"{proof.__module__.rpartition('.')[2]}.{proof.__name__}"
    lab.say(name, f"{what} begins")
    try:
        row = proof(lab)
    except Exception as error:
        row = Row(name, what, f"not measured: {type(error).__name__}: {error}"[:2000], "to be measured", False)
    lab.say(name, f"{'pass' if row.passed else 'FAIL'}: {row.measured}")
    return row


def _left_behind(folder: Path) -> list[Row]:
    """A row where processes are left over, which no proof may do; they are killed."""
    pids = processes_in(folder)
    if not pids:
        return []
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return [Row("left behind", "processes of this run that still live", f"{len(pids)}", "0", False, {"pids": pids})]


if __name__ == "__main__":
    main()
