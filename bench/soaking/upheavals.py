"""Workers that are killed and proxies that are reloaded, and which requests that may have cost.

A killed worker is stopped first, so that what it had at its end is known to the connection: a request that breaks off
without having been there is a fault.
"""

import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from bench.soaking.record import Record
from tests.support.process_facts import workers_of
from tests.support.proxy_process import ProxyProcess
from tests.support.waiting import wait_for

LINE_WITHIN_S = 10.0  # after a caller has left, its worker may still be at the request for a moment
_DRAIN_SLACK_S = 1.0
_LINE_SLACK_S = 0.1
_LISTENS = "0A"
# The kernel gives its table out page by page, and while others come and go a connection may be left out of one reading.
_READINGS = 3


@dataclass(frozen=True)
class Kill:
    """A worker was killed; `ports`: the callers' ends of its connections."""

    at: float  # this and `until` by time.monotonic()
    until: float  # from here on whoever looks at such a connection sees that it is closed
    ports: frozenset[int]


@dataclass
class Upheavals:
    """All that has happened so far to a proxy whose workers have `drain_s` to end."""

    proxy: ProxyProcess
    drain_s: float
    kills: list[Kill] = field(default_factory=list)
    reloads: list[float] = field(default_factory=list)  # by time.monotonic()

    def kill(self, worker: int) -> None:
        """SIGKILL, as the kernel does when memory runs out."""
        with suppress(ProcessLookupError):
            # From just before: a caller may have its answer, and the worker no time left to write its line.
            at = time.monotonic() - _LINE_SLACK_S
            os.kill(worker, signal.SIGSTOP)
            wait_for(lambda: _state(worker) in "TZX")
            ports = _callers_of(worker, self.proxy.port)
            os.kill(worker, signal.SIGKILL)
            wait_for(lambda: _state(worker) in "ZX")
            self.kills.append(Kill(at, time.monotonic(), frozenset(ports)))

    def reload(self) -> None:
        """SIGHUP: new workers come, the old ones end within `drain_s`."""
        self.reloads.append(time.monotonic())
        self.proxy.signal(signal.SIGHUP)

    def workers(self) -> list[int]:
        """The living ones, those that drain among them."""
        return sorted(workers_of(self.proxy))

    def was_killed(self, record: Record) -> bool:
        """Whether a killed worker had the request."""
        last = record.ended + (LINE_WITHIN_S if record.outcome == "left" else 0)
        return any(record.port in kill.ports and record.began <= kill.until and kill.at <= last for kill in self.kills)

    def was_drained(self, record: Record, drained: Sequence[float]) -> bool:
        """Whether the request ended with a worker whose time was over; `drained`: when that was, by its own word.

        A worker has its whole time: where it ended before, that is no reason for anything.
        """
        return any(
            record.began <= over
            and over - _DRAIN_SLACK_S <= record.ended <= over + LINE_WITHIN_S
            and any(at + self.drain_s - _DRAIN_SLACK_S <= over for at in self.reloads)
            for over in drained
        )


def _callers_of(worker: int, port: int) -> set[int]:
    """The remote ports of a worker's connections from callers."""
    inodes = set()
    for descriptor in Path(f"/proc/{worker}/fd").iterdir():
        with suppress(OSError):
            inodes.add(os.readlink(descriptor))
    return set().union(*(_peers(inodes, port) for _ in range(_READINGS)))


def _peers(inodes: set[str], port: int) -> set[int]:
    ports = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        local, remote = (int(word.rpartition(":")[2], 16) for word in words[1:3])
        if local == port and words[3] != _LISTENS and f"socket:[{words[9]}]" in inodes:
            ports.add(remote)
    return ports


def _state(pid: int) -> str:
    """Its letter in /proc/PID/stat; X where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return "X"
