"""P1: how often one host asks the issuer, whatever its workers and restarts: by a simulated clock, and in real time."""

import heapq
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

from bench.token_proofs.issuer import Issuer
from bench.token_proofs.load import BROKEN, Load, Sample, failures, statuses
from bench.token_proofs.proxies import config_for, start, wait_for, warm_up, workers_of
from bench.token_proofs.rows import Lab, Row
from proxy.tokens.holder import TokenHolder
from proxy.tokens.sources.base import Grant, Source
from proxy.tokens.stores.file import FileStore
from tests.support.clock import Clock
from tests.support.proxy_process import ProxyProcess
from tests.support.sandbox_client import SandboxClient

LIFETIME_S = 300.0
HOUR_S = 3600.0
WORKERS = (1, 4, 16)
RECYCLED_EVERY_S = 60.0
LOOKS_EVERY_S = 30.0  # as the holder's thread does even where nothing is due
CUT_WITHIN_S = 1.0  # of a SIGKILL: a request that breaks off then was in that worker


class _CountingSource(Source):
    def __init__(self, clock: Clock) -> None:
        self.fetched_at: list[float] = []
        self._clock = clock

    def fetch(self) -> Grant:
        self.fetched_at.append(self._clock.now)
        return Grant(f"token-{len(self.fetched_at)}", LIFETIME_S)


def simulated(lab: Lab) -> Row:
    """Hours of 1, 4 and 16 workers over one file store, a worker replaced every minute."""
    hours = 4 if lab.quick else 100
    rates = {workers: _simulate(workers, hours, lab.place(f"rate-{workers}")) for workers in WORKERS}
    measured = ", ".join(f"{count} workers: {min(rate)} to {max(rate)}" for count, rate in rates.items())
    passed = all(24 <= fetches <= 30 for rate in rates.values() for fetches in rate)
    figures = {"hours": hours, "fetches_in_each_hour": {str(count): rate for count, rate in rates.items()}}
    what = f"fetches an hour, {hours} simulated hours, a worker recycled every minute"
    return Row("P1", what, measured, "24 to 30, whatever the workers", passed, figures)


def _simulate(workers: int, hours: int, folder: Path) -> list[int]:
    """Fetches in each hour. Whoever's pause is over first gets the clock; that is all that a thread would do."""
    clock, dice = Clock(0.0), random.Random(workers)
    source = _CountingSource(clock)

    def new_worker() -> TokenHolder:
        return TokenHolder("simulated", source, FileStore(folder, "corp", clock=clock), clock=clock, jitter=dice.random)

    holders = [new_worker() for _ in range(workers)]
    # Instant and slot; beyond the slots stands the one who recycles.
    turns = [(0.0, slot) for slot in range(workers)] + [(RECYCLED_EVERY_S, workers)]
    heapq.heapify(turns)
    while turns[0][0] < hours * HOUR_S:
        at, slot = heapq.heappop(turns)
        clock.now = max(clock.now, at)
        if slot == workers:
            holders[dice.randrange(workers)] = new_worker()
            heapq.heappush(turns, (at + RECYCLED_EVERY_S, slot))
        else:
            pause_s = holders[slot].renew_if_due()
            heapq.heappush(turns, (clock.now + min(max(pause_s, 0.001), LOOKS_EVERY_S), slot))
    counts = Counter(int(at // HOUR_S) for at in source.fetched_at)
    return [counts[hour] for hour in range(hours)]


def real(lab: Lab) -> Row:
    """Ten minutes of 300 s tokens; each minute a reload and a recycled worker, at times a full restart, under load."""
    workers, minute_s, minutes, lifetime_s = (4, 10.0, 6, 30.0) if lab.quick else (4, 60.0, 10, 300.0)
    lasts_s = minutes * minute_s
    with SandboxClient.start() as sandbox, Issuer(lifetime_s, delay_s=0.3) as issuer:
        config, folder = config_for(sandbox, issuer, workers=workers), lab.place("rate")
        proxy = start(config, folder)
        try:
            warm_up(proxy, workers)
            first = issuer.calls[0].began
            with Load(proxy.port, per_second=40, threads=6, keep_alive=False) as load:
                killed_at: list[float] = []
                for minute in range(minutes):
                    began = first + minute * minute_s
                    _sleep_until(began + 0.2 * minute_s)
                    proxy.signal(signal.SIGHUP)
                    _sleep_until(began + 0.5 * minute_s)
                    number = signal.SIGKILL if minute % 2 else signal.SIGTERM
                    killed_at += [time.monotonic()] if minute % 2 else []
                    _recycle(proxy, number, workers)
                    if minute % 3 == 2:
                        _sleep_until(began + 0.75 * minute_s)
                        load.pause()  # a lone master that is away refuses connections, and that is no matter of tokens
                        proxy.stop()
                        proxy = start(config, folder, proxy.port)
                        load.resume()
                    lab.say("P1", f"minute {minute + 1} of {minutes}, {len(issuer.calls)} fetches")
                    _sleep_until(began + minute_s)
                fetches = [call.began - first for call in issuer.calls if call.began - first < lasts_s]
            samples = load.samples()
        finally:
            proxy.stop()
    cut = [sample for sample in failures(samples) if _is_cut(sample, killed_at)]
    failed = len(failures(samples)) - len(cut)
    return Row(
        "P1",
        f"{lasts_s:.0f} real seconds, {lifetime_s:.0f} s tokens, {workers} workers; each {minute_s:.0f} s a HUP and a "
        "recycled worker, at times a full restart; 40 requests/s",
        f"{len(fetches)} fetches, {failed} of {len(samples)} requests failed"
        f" ({len(cut)} more were inside a worker at its SIGKILL)",
        "at most 5 fetches, 0 failed",
        len(fetches) <= 5 and failed == 0,
        {
            "fetches_at_s": [round(at, 1) for at in fetches],
            "requests": len(samples),
            "statuses": statuses(samples),
            "cut_by_sigkill": len(cut),
            "longest_s": round(max(sample.took_s for sample in samples), 3),
        },
    )


def _recycle(proxy: ProxyProcess, number: signal.Signals, workers: int) -> None:
    """End one worker; returns when its successor is there. SIGTERM is a recycled worker, SIGKILL the OOM killer's."""
    victim = min(workers_of(proxy))
    os.kill(victim, number)
    wait_for(lambda: victim not in workers_of(proxy) and len(workers_of(proxy)) >= workers, 30, "successor")


def _is_cut(sample: Sample, killed_at: list[float]) -> bool:
    return sample.status == BROKEN and any(
        sample.at <= at + CUT_WITHIN_S and at <= sample.at + sample.took_s + CUT_WITHIN_S for at in killed_at
    )


def _sleep_until(instant: float) -> None:
    time.sleep(max(0.0, instant - time.monotonic()))
