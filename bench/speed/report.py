"""The comparison as people and programs read it: a table of medians, the acceptance lines, and all of it as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from bench.machine_facts import Facts
from bench.speed.acceptance import Verdict
from bench.speed.medians import Figures, Runs
from bench.speed.rows import NAMES, ROWS, Row

# Figures of a row in the order in which they stand in the table, and what they are called there.
_CLOSED = {
    "cpu_us_per_request": "CPU µs per request",
    "per_second": "requests/s",
    "latency_ms.p50": "latency p50, ms",
    "latency_ms.p99": "latency p99, ms",
    "added.latency_ms.p50": "added latency p50, ms",
    "added.latency_ms.p99": "added latency p99, ms",
    "failures": "failures",
}
_STREAMS = {
    "cpu_us_per_frame": "CPU µs per frame",
    "cpu_share": "share of a core",
    "memory_kb_per_stream": "memory per stream, kB",
    "first_byte_ms.p50": "first byte p50, ms",
    "first_byte_ms.p99": "first byte p99, ms",
    "added.first_byte_ms.p50": "added to the first byte p50, ms",
    "added.first_byte_ms.p99": "added to the first byte p99, ms",
    "frame_delay_ms.p50": "frame delay p50, ms",
    "frame_delay_ms.p99": "frame delay p99, ms",
    "incomplete": "incomplete streams",
    "differing": "streams whose bytes differ",
    "upstream_late_ms": "the upstream's own worst delay, ms",
}


@dataclass(frozen=True)
class Report:
    """All that a bench has found."""

    began: datetime
    about: Facts
    figures: Figures
    runs: Runs
    verdicts: Sequence[Verdict]
    quick: bool

    @property
    def passed(self) -> bool:
        return all(one.passed for one in self.verdicts)

    def text(self) -> str:
        """Markdown: the facts, the table, the acceptance lines."""
        said = [f"- {fact}: {value}" for fact, value in self.about.items()]
        said += [f"- not measured: {note}" for note in self._notes()]
        parts = ["# The proxy beside its peers", "\n".join(said), self._table(), "## Acceptance", self._verdicts()]
        return "\n\n".join(parts) + "\n"

    def write(self, folder: Path, suffix: str) -> list[Path]:
        """Write FOLDER/DATE + suffix as .md and, with each single run, as .json; the paths of both."""
        folder.mkdir(parents=True, exist_ok=True)
        verdicts = [asdict(one) for one in self.verdicts]
        document = {**self.about, "acceptance": verdicts, "medians": self.figures, "runs": self.runs}
        paths = [folder / f"{self.began:%Y-%m-%d}{suffix}.{kind}" for kind in ("md", "json")]
        paths[0].write_text(self.text())
        paths[1].write_text(json.dumps(document, indent=1) + "\n")
        return paths

    def _table(self) -> str:
        """A line for each figure of each row, a column for each target of which there is any."""
        names = [name for name in NAMES if any(targets.get(name) for targets in self.figures.values())]
        lines = [f"| load | figure | {' | '.join(names)} |", "| --- | --- |" + " ---: |" * len(names)]
        for row in (row for row in ROWS if row.name in self.figures):
            title = _title(row, quick=self.quick)
            for key, label in (_STREAMS if row.command == "streams" else _CLOSED).items():
                values = [self.figures[row.name].get(name, {}).get(key) for name in names]
                if any(value is not None for value in values):
                    lines.append(f"| {title} | {label} | {' | '.join(map(_text, values))} |")
                    title = ""
        return "\n".join(lines)

    def _verdicts(self) -> str:
        lines = ["| measure | measured | at most | |", "| --- | ---: | --- | --- |"]
        for one in self.verdicts:
            lines.append(f"| {one.what} | {one.measured} | {one.required} | {'PASS' if one.passed else 'FAIL'} |")
        return "\n".join(lines)

    def _notes(self) -> list[str]:
        """What could not be measured and why, each thing once."""
        errors = {
            f"{row}, {name}: {' '.join(str(figures['error']).split())[:300]}"
            for run in self.runs
            for row, targets in run.items()
            for name, figures in targets.items()
            if "error" in figures
        }
        return sorted(errors)


def _title(row: Row, *, quick: bool) -> str:
    """What the row is, and who had a lighter load."""
    light = [
        f"{name}: {' '.join(f'{value} {key}' for key, value in options.items()).replace('count', 'streams')}"
        for name, options in row.lighter.items()
    ]
    what = row.what.replace(" for 60 s", "") if quick else row.what
    return f"`{row.name}` {what}" + (f" ({', '.join(light)})" if light else "")


def _text(value: float | None) -> str:
    if value is None:
        return ""
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:,.3g}" if abs(value) < 100 else f"{value:,.1f}"
