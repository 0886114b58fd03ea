"""docs/compatibility.md as text: a table of clients by features, and below it why a cell is not a pass.

Pure: tests/compatibility/conftest.py says what the rows are and where the file is.
"""

import re
from dataclasses import dataclass, field

from tests.support.compatibility import FEATURES

PASS = ""  # what a cell holds in place of the reason why it is not a pass
_HEAD = """# Compatibility

Written by `make matrix` from a run of tests/compatibility, not by hand; `make test` fails where a run disagrees.

Each client runs its own code against the proxy, with the sandbox behind it; "replayed": the tests make its calls, told
after its sources. What is named "as upstream" stands behind the proxy itself, and the openai client asks. "yes": the
tests passed. Else the note says why. The version is the one that was run.
"""
_NOTE = re.compile(r"^\[\^(\d+)\]: (.+)$", re.MULTILINE)
_CELL = re.compile(r"no\[\^(\d+)\]")


@dataclass(frozen=True)
class Row:
    """A client's version, and for each feature PASS or the reason why not."""

    version: str
    cells: dict[str, str] = field(default_factory=dict)


def render(rows: dict[str, Row]) -> str:
    """Write the page; rows by name, notes in the order in which they are first needed."""
    notes: dict[str, int] = {}
    table = [_line("client", "version", *FEATURES), _line(*["---"] * (2 + len(FEATURES)))]
    for name in sorted(rows, key=str.lower):
        reasons = [rows[name].cells[feature] for feature in FEATURES]
        cells = [f"no[^{notes.setdefault(reason, len(notes) + 1)}]" if reason else "yes" for reason in reasons]
        table.append(_line(name, rows[name].version.replace("|", "/"), *cells))
    reasons_below = [f"[^{number}]: {reason}" for reason, number in notes.items()]
    return "\n".join([_HEAD, *table, "", *reasons_below]).rstrip() + "\n"


def parse(page: str) -> dict[str, Row]:
    """Read what render wrote; no rows where the text has no table."""
    notes = dict(_NOTE.findall(page))
    table = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("|")]
    if not table:
        return {}
    features = table[0][2:]
    return {
        name: Row(version, {feature: _reason(cell, notes) for feature, cell in zip(features, cells, strict=False)})
        for name, version, *cells in table[2:]
    }


def _reason(cell: str, notes: dict[str, str]) -> str:
    """Get why a cell is not a pass; what neither a run nor a note explains is equal to no reason of a test."""
    if cell == "yes":
        return PASS
    number = _CELL.fullmatch(cell)
    return notes.get(number[1], "no note") if number else f"unreadable: {cell}"


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
