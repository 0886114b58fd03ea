"""CPU time and memory of a process and all of its children, as the kernel counts them.

The CPU clock of a process (clock_getcpuclockid(3)) has nanoseconds, user and system time of all its threads, ended ones
too. Memory is the proportional set size: pages that a master and its workers share
count once. Caller: load.py.
"""

import time
from pathlib import Path

_CPUCLOCK_SCHED = 2


def tree(pid: int) -> list[int]:
    """The process and its descendants."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def cpu_ns(pids: list[int]) -> int:
    """CPU nanoseconds that the processes have used since they began. Raises OSError where one has ended."""
    return sum(time.clock_gettime_ns((~pid << 3) | _CPUCLOCK_SCHED) for pid in pids)


def memory_bytes(pids: list[int]) -> int:
    """The proportional set size of the processes together."""
    return 1024 * sum(_pss_kib(pid) for pid in pids)


def _pss_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise ValueError(f"no Pss in smaps_rollup of {pid}")


class Meter:
    """What the processes used between two instants; nothing is metered where there is no process."""

    def __init__(self, pid: int | None) -> None:
        """Note the memory as it is now, before the load."""
        self._root = pid
        self._pids = tree(pid) if pid is not None else []
        self.memory_before = memory_bytes(self._pids)
        self.memory_more = 0
        self._begin_ns = self._cpu_begin_ns = 0
        self.seconds = self.cpu_s = 0.0

    def begin(self) -> None:
        self._pids = tree(self._root) if self._root is not None else []
        self._begin_ns, self._cpu_begin_ns = time.monotonic_ns(), cpu_ns(self._pids)

    def end(self) -> None:
        """Close the window; the memory is that of its end."""
        self.cpu_s = (cpu_ns(self._pids) - self._cpu_begin_ns) / 1e9
        self.seconds = (time.monotonic_ns() - self._begin_ns) / 1e9
        self.memory_more = memory_bytes(self._pids) - self.memory_before

    def cpu_us_per(self, count: int) -> float | None:
        """CPU microseconds for each of so many requests or frames; None where nothing was metered."""
        return round(1e6 * self.cpu_s / count, 2) if self._pids and count else None

    def kb_per(self, count: int) -> float | None:
        """The memory that came on top since the beginning, in kB (1,000 bytes) for each of so many streams."""
        return round(self.memory_more / count / 1e3, 1) if self._pids else None

    def figures(self) -> dict[str, float]:
        if not self._pids or not self.seconds:
            return {"window_s": round(self.seconds, 3)}
        return {
            "window_s": round(self.seconds, 3),
            "cpu_s": round(self.cpu_s, 4),
            "cpu_share": round(self.cpu_s / self.seconds, 4),
            "memory_before_mb": round(self.memory_before / 1e6, 2),
            "memory_more_mb": round(self.memory_more / 1e6, 2),
        }
