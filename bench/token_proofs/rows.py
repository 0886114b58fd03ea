"""What a proof gets and what it gives: a `Lab` to work in, a `Row` for the table."""

import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Row:
    """One line of the table; `figures` holds the numbers behind it, for the JSON file."""

    name: str
    what: str
    measured: str
    required: str
    passed: bool
    figures: dict[str, Any] = field(default_factory=dict)


class Lab:
    """Where one run of the bench takes place: how long it may take, and a folder of its own."""

    def __init__(self, folder: Path, *, quick: bool) -> None:
        self.folder = folder
        self.quick = quick
        self._began = time.monotonic()
        self._talking = threading.Lock()

    def place(self, name: str) -> Path:
        """A new folder of this user alone, as a host's runtime folder is."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.folder))

    def say(self, name: str, text: str) -> None:
        """A line of progress."""
        with self._talking:
            print(f"{time.monotonic() - self._began:6.0f} s  {name}: {text}", file=sys.stderr, flush=True)


def share(values: list[float], part: float) -> float:
    """The value below which that part of the values lies: 0.99 for p99; 0 where there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else 0.0
