"""P9: proxies that are stopped, reloaded and killed with a fetch in flight: nothing hangs, nothing is fetched twice.

Each cycle gives the token source a new definition, so that one token is needed, and begins the upheaval once the
issuer has been asked for it. A second fetch is one that brings a token after another already had; the fetch of a
process that was killed brought none, so it must be made once more.
"""

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from bench.token_proofs.issuer import Call, Issuer
from bench.token_proofs.load import Caller, Sample
from bench.token_proofs.proxies import Config, config_for, kill_all, owner_of_connection, start, wait_for, workers_of
from bench.token_proofs.rows import Lab, Row
from tests.support.proxy_process import ProxyProcess
from tests.support.sandbox_client import SandboxClient

ISSUER_TAKES_S = 1.5  # so that whoever fetches is found while it does
WORKERS = 2
HANGS_AFTER_S = 10.0  # a request waits 6 s for a token at most
SETTLES_WITHIN_S = 30.0


@dataclass
class _Stage:
    """The proxy of all cycles and those who ask it."""

    config: Config
    folder: Path
    issuer: Issuer
    proxy: ProxyProcess
    samples: list[Sample] = field(default_factory=list)

    def redefine(self, cycle: int) -> None:
        """Write settings with which the token before is of no use."""
        self.config["token_sources"]["corp"]["json"]["cycle"] = cycle
        server = {"bind": f"127.0.0.1:{self.proxy.port}", **self.config["server"]}
        file = self.folder / f"{self.proxy.port}.yaml"
        file.write_text(yaml.safe_dump({**self.config, "server": server}))

    def start_again(self) -> None:
        self.proxy = start(self.config, self.folder, self.proxy.port)

    def await_fetch(self, cycle: int) -> Call:
        """The call that is in flight for a cycle; callers ask all the while."""
        found: list[Call] = []

        def is_in_flight() -> bool:
            found[:] = [call for call in self.issuer.running() if call.cycle == cycle]
            return bool(found)

        wait_for(is_in_flight, SETTLES_WITHIN_S, f"fetch of cycle {cycle}")
        return found[0]

    def settle(self, cycle: int) -> None:
        """Return when the cycle's token is there, all workers are, and each of several requests is served."""
        wait_for(lambda: self._tokens(cycle) > 0, SETTLES_WITHIN_S, f"token of cycle {cycle}")
        wait_for(lambda: len(workers_of(self.proxy)) == WORKERS, SETTLES_WITHIN_S, "workers as before")
        for _ in range(4 * WORKERS):
            sample = Caller(self.proxy.port, keep_alive=False).ask()
            assert sample.status == 200, f"cycle {cycle}: {sample}"

    def _tokens(self, cycle: int) -> int:
        return sum(call.cycle == cycle for call in self.issuer.tokens())


def lifecycles(lab: Lab) -> Row:
    cycles = 8 if lab.quick else 100
    hangs: list[str] = []
    with SandboxClient.start() as sandbox, Issuer(300.0, delay_s=ISSUER_TAKES_S) as issuer:
        config, folder = config_for(sandbox, issuer, workers=WORKERS), lab.place("cycles")
        stage = _Stage(config, folder, issuer, start(config, folder))
        over = threading.Event()
        callers = [threading.Thread(target=_ask_on, args=(stage, over)) for _ in range(4)]
        for caller in callers:
            caller.start()
        try:
            for cycle in range(1, cycles + 1):
                upheaval = UPHEAVALS[cycle % len(UPHEAVALS)]
                try:
                    upheaval(stage, cycle)
                    stage.settle(cycle)
                except AssertionError as error:
                    hangs.append(f"{upheaval.__name__}: {error}".splitlines()[0])
                    kill_all(stage.proxy)
                    stage.start_again()
                if cycle % 10 == 0:
                    lab.say("P9", f"{cycle} of {cycles} cycles")
        finally:
            over.set()
            for caller in callers:
                caller.join(2 * HANGS_AFTER_S)
            kill_all(stage.proxy)
        return _row(cycles, issuer, stage.samples, hangs)


def _row(cycles: int, issuer: Issuer, samples: list[Sample], hangs: list[str]) -> Row:
    asked = Counter(call.cycle for call in issuer.calls if call.cycle)
    brought = Counter(call.cycle for call in issuer.tokens() if call.cycle)
    second = sum(count - 1 for count in brought.values())
    slow = [sample for sample in samples if sample.took_s > HANGS_AFTER_S]
    return Row(
        "P9",
        f"{cycles} cycles of stop, HUP, SIGKILL of the worker that fetches, SIGKILL of all, each with a fetch in "
        f"flight, {WORKERS} workers",
        f"{len(hangs) + len(slow)} hangs, {second} second fetches ({sum(asked.values())} calls for "
        f"{sum(brought.values())} tokens in {len(brought)} cycles; longest request "
        f"{max(sample.took_s for sample in samples):.1f} s)",
        "0 hangs, 0 second fetches",
        not hangs and not slow and second == 0 and len(brought) == cycles,
        {
            "hangs": hangs,
            "calls": sum(asked.values()),
            "tokens": sum(brought.values()),
            "calls_a_cycle": dict(Counter(asked.values())),
            "statuses": dict(Counter(sample.error or str(sample.status) for sample in samples)),
        },
    )


def _stop_and_start(stage: _Stage, cycle: int) -> None:
    stage.redefine(cycle)
    stage.proxy.signal(signal.SIGHUP)
    stage.await_fetch(cycle)
    stage.proxy.stop()
    stage.start_again()


def _reload(stage: _Stage, cycle: int) -> None:
    stage.redefine(cycle)
    stage.proxy.signal(signal.SIGHUP)
    stage.await_fetch(cycle)
    before = workers_of(stage.proxy)
    stage.proxy.signal(signal.SIGHUP)
    wait_for(lambda: not before & workers_of(stage.proxy), SETTLES_WITHIN_S, "end of the old workers")


def _kill_fetcher(stage: _Stage, cycle: int) -> None:
    stage.redefine(cycle)
    stage.proxy.signal(signal.SIGHUP)
    call = stage.await_fetch(cycle)
    fetcher = owner_of_connection(call.port, stage.issuer.port, workers_of(stage.proxy))
    assert fetcher is not None, "no worker has the connection of the fetch"
    os.kill(fetcher, signal.SIGKILL)


def _kill_everything(stage: _Stage, cycle: int) -> None:
    stage.redefine(cycle)
    stage.proxy.signal(signal.SIGHUP)
    stage.await_fetch(cycle)
    kill_all(stage.proxy)
    stage.start_again()


UPHEAVALS: tuple[Callable[[_Stage, int], None], ...] = (_stop_and_start, _reload, _kill_fetcher, _kill_everything)


def _ask_on(stage: _Stage, over: threading.Event) -> None:
    """Ask with pauses, whatever comes: an upheaval breaks requests off, and only waiting for ever would be a fault."""
    while not over.wait(0.1):
        with suppress(OSError):
            stage.samples.append(Caller(stage.proxy.port, keep_alive=False).ask())
