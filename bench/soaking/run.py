"""One soak: the proxy from its warm-up to the last look at it. Caller: bench/soak.py."""

import time
from dataclasses import replace
from pathlib import Path
from random import Random

from bench.soaking.access_lines import AccessLog
from bench.soaking.books import Books
from bench.soaking.level import Level, await_level, measure
from bench.soaking.load import Cast, Load
from bench.soaking.memory import MemoryWatch
from bench.soaking.record import Register
from bench.soaking.scene import BODY_MOST_BYTES, Scene
from bench.soaking.table import Found
from bench.soaking.timeline import UPHEAVALS_UNTIL, Due, timeline
from bench.soaking.totals import final_totals
from bench.soaking.troubles import Troubles
from bench.soaking.upheavals import LINE_WITHIN_S, Upheavals
from bench.token_proofs.rows import Lab
from tests.support.process_facts import arguments_of, processes_of
from tests.support.proxy_process import ProxyProcess
from tests.support.sandbox_client import SandboxClient

DRAIN_S = 60.0
LONGEST_STREAM_S = 50.0  # so that a reload need cut none
SETTLES_WITHIN_S = 90.0  # idle connections to the upstream are kept for 55 s
_WARM_UP_S = 6.0
_STEADY_AFTER_S = DRAIN_S  # of the last upheaval: then the old workers have ended, and the memory counts
_LOOKS_EVERY_S = 2.0
_TROUBLES_EVERY_S = 4.0
_MEMORY_EVERY_S = 5.0
_SAYS_EVERY_S = 30.0


def cast_of(streams: int) -> Cast:
    """Beside the streams some that ask for chats and embeddings; of all callers one in ten is hostile."""
    chats, embeddings = max(2, streams // 15), max(1, streams // 30)
    return Cast(streams, chats, embeddings, hostile=round((streams + chats + embeddings) / 9))


class Soak:
    """Made for a proxy that has just started."""

    def __init__(
        self, lab: Lab, sandbox: SandboxClient, scene: Scene, proxy: ProxyProcess, log_file: Path, seed: int
    ) -> None:
        self._lab, self._sandbox, self._scene, self._proxy, self._seed = lab, sandbox, scene, proxy, seed
        self._log_file = log_file
        self._register = Register("soak-")
        self._log = AccessLog(log_file)
        self._upheavals = Upheavals(proxy, DRAIN_S)
        self._dice = Random(seed)
        self._troubles = Troubles(sandbox, self._dice)
        self._memory = MemoryWatch(proxy.process.pid)
        self._steady_from = 0.0  # by time.monotonic()
        self._books = Books(self._register, self._log, sandbox.take_ended, self._upheavals, issuer_fails=False)

    def run(self, total_s: float, streams: int) -> Found:
        """The load and what comes of it; returns when the proxy has come to rest again, or had its time to."""
        before = self._warm_up()
        with self._load(self._register, cast_of(streams), LONGEST_STREAM_S) as load:
            self._go_on(load, total_s)
        self._troubles.end()
        self._lab.say("soak", "the load has ended")
        after, settled_s = await_level(self._proxy, before, SETTLES_WITHIN_S)
        totals = final_totals(self._proxy)
        self._books.turn(is_last=True)
        arguments = arguments_of(processes_of(self._proxy.process.pid))
        return Found(
            register=self._register,
            books=self._books,
            log=self._log,
            totals=totals,
            upheavals=self._upheavals,
            upstream=self._sandbox.state(),
            leaks=self._scene.leaks(self._log_file, totals.page, arguments),
            before=before,
            after=after,
            settled_s=settled_s,
            memory=self._memory,
            steady_from=self._steady_from,
            history=self._troubles.history,
        )

    def _warm_up(self) -> Level:
        """What the workers hold when each has done a little of everything; what they did is forgotten."""
        with self._load(Register("warm-"), Cast(streams=8, chats=4, embeddings=2, hostile=8), 1.0):
            time.sleep(_WARM_UP_S)
        time.sleep(LINE_WITHIN_S)  # the last of it ends
        self._log.take_new()
        self._sandbox.reset()
        # Those of the warm-up are kept for a while; in the end there is time for all to be closed.
        return replace(measure(self._proxy), upstream_connections=0)

    def _load(self, register: Register, cast: Cast, longest_s: float) -> Load:
        return Load(
            self._proxy.port,
            register,
            cast,
            self._scene.keys,
            seed=self._seed,
            longest_s=longest_s,
            body_most_bytes=BODY_MOST_BYTES,
        )

    def _go_on(self, load: Load, total_s: float) -> None:
        """Until the time is over; what is due at an instant is done one after the other."""
        began = time.monotonic()
        events = timeline(total_s, self._dice)
        self._steady_from = began + UPHEAVALS_UNTIL * total_s + _STEADY_AFTER_S
        next_at = {"look": 0.0, "trouble": 5.0, "memory": 0.0, "say": _SAYS_EVERY_S}
        every_s = {
            "look": _LOOKS_EVERY_S,
            "trouble": _TROUBLES_EVERY_S,
            "memory": _MEMORY_EVERY_S,
            "say": _SAYS_EVERY_S,
        }
        acts = {
            "look": self._books.turn,
            "trouble": self._troubles.trouble_upstream,
            "memory": self._memory.look,
            "say": self._say,
        }
        while (now := time.monotonic() - began) < total_s:
            load.check()
            while events and events[0].at_s <= now:
                self._do(events.pop(0))
            for name in [name for name, at_s in next_at.items() if at_s <= now]:
                next_at[name] = now + every_s[name]
                acts[name]()
            time.sleep(0.2)

    def _do(self, due: Due) -> None:
        if due.event == "reload":
            self._troubles.note("reload")
            self._upheavals.reload()
        elif due.event == "kill":
            self._troubles.note("a worker is killed")
            self._upheavals.kill(self._dice.choice(self._upheavals.workers()))
        elif due.event == "issuer away":
            self._troubles.trouble_issuer()
        else:
            self._troubles.ease_issuer()

    def _say(self) -> None:
        books = self._books
        broken = sum(books.broken_count.values())
        settled = ", ".join(f"{count} {outcome}" for outcome, count in sorted(books.outcomes.items()))
        self._lab.say("soak", f"{self._register.started} started; settled: {settled}; {broken} broken rules")
