"""What the processes of a proxy hold, before the load and after it."""

import os
import time
from contextlib import suppress
from dataclasses import dataclass

from bench.soaking.totals import scrape
from tests.support.process_facts import descriptors_of, workers_of
from tests.support.proxy_process import ProxyProcess


@dataclass(frozen=True)
class Level:
    """The most of any worker, but for sums over all of them: the connections and `in_flight`, without the scrape."""

    workers: int
    descriptors: int  # but for connections
    threads: int
    master_descriptors: int
    upstream_connections: int  # and to the issuer
    caller_connections: int
    in_flight: int

    def above(self, other: "Level") -> dict[str, str]:
        """What is higher than at that other time, and whether there are fewer workers, which then hold less."""
        mine, theirs = vars(self), vars(other)
        return {
            name: f"{mine[name]}, before {theirs[name]}"
            for name in mine
            if mine[name] > theirs[name] or (name == "workers" and mine[name] < theirs[name])
        }


def measure(proxy: ProxyProcess) -> Level:
    """As it is now. Raises OSError where a worker ends just now."""
    in_flight = scrape(proxy.url).in_flight - 1
    workers = sorted(workers_of(proxy))
    held = [descriptors_of(worker, proxy.port) for worker in workers]
    return Level(
        workers=len(workers),
        descriptors=max(one["other"] for one in held),
        threads=max(len(os.listdir(f"/proc/{worker}/task")) for worker in workers),
        master_descriptors=descriptors_of(proxy.process.pid, proxy.port)["other"],
        upstream_connections=sum(one["outgoing"] for one in held),
        caller_connections=sum(one["caller"] for one in held),
        in_flight=in_flight,
    )


def await_level(proxy: ProxyProcess, before: Level, within_s: float) -> tuple[Level, float]:
    """The level once it is as low as before, or when the time is over; and after how many seconds that was."""
    began = time.monotonic()
    while True:
        took_s = time.monotonic() - began
        with suppress(OSError):  # a worker that drained ends just now
            level = measure(proxy)
            if not level.above(before) or took_s > within_s:
                return level, took_s
        time.sleep(1)
