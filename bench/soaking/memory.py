"""How the memory of each process of a proxy grows under a load: by the slope, since a high figure alone says nothing.

A process is looked at by itself: the sum over all would sink when an old worker ends, and hide a growing one. It is the
resident size, which what other processes do does not change, unlike a share of pages that are held in common.
"""

import os
import statistics
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench.speed.meter import tree

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Growth:
    """Of one process over the time of its samples, by least squares; all but that in bytes."""

    pid: int
    seconds: float
    grown: float  # the slope times the seconds
    error: float  # the standard error of that
    first: int
    last: int


class MemoryWatch:
    """Samples of the master and its workers; `samples`: by process, each a time.monotonic() and bytes."""

    def __init__(self, master: int) -> None:
        self.samples: dict[int, list[tuple[float, int]]] = {}
        self._master = master

    def look(self) -> None:
        now = time.monotonic()
        for pid in self._processes():
            with suppress(OSError):  # it ended meanwhile
                self.samples.setdefault(pid, []).append((now, resident_bytes(pid)))

    def growths(self, since: float, least: int) -> list[Growth]:
        """Of the processes that lived from `since` on until the last look, where there were so many looks or more."""
        seen = {pid: [sample for sample in samples if sample[0] >= since] for pid, samples in self.samples.items()}
        most = max(map(len, seen.values()), default=0)
        return [growth_of(pid, samples) for pid, samples in seen.items() if len(samples) == most >= least]

    def _processes(self) -> list[int]:
        with suppress(OSError):  # one ended meanwhile
            return tree(self._master)
        return []


def growth_of(pid: int, samples: list[tuple[float, int]]) -> Growth:
    """Of three samples or more."""
    times, sizes = zip(*samples, strict=True)
    slope, start = statistics.linear_regression(times, sizes)
    rest = sum((size - start - slope * at) ** 2 for at, size in samples) / (len(samples) - 2)
    error = float((rest / (statistics.pvariance(times) * len(times))) ** 0.5)
    seconds = times[-1] - times[0]
    return Growth(pid, seconds, slope * seconds, error * seconds, sizes[0], sizes[-1])


def resident_bytes(pid: int) -> int:
    return _PAGE_BYTES * int(Path(f"/proc/{pid}/statm").read_text().split()[1])
