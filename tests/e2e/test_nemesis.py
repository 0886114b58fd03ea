"""A nemesis: faults of the issuer, the upstream, callers and processes together, drawn by a seed, under a small load.

Books are kept of every request, as its caller, the access line and the upstream tell of it, and must agree; what the
soak (`make soak`) does for minutes with fewer faults is done here for seconds with more. `NEMESIS_SEED` names a seed.
"""

import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import httpx

from bench.soaking.access_lines import AccessLog
from bench.soaking.books import Books
from bench.soaking.good_callers import CHAT, messages
from bench.soaking.load import Cast, Load
from bench.soaking.record import Register
from bench.soaking.scene import BODY_MOST_BYTES, Scene
from bench.soaking.totals import differences, final_totals
from bench.soaking.troubles import Troubles
from bench.soaking.upheavals import Upheavals
from tests.support.always_true import always_true
from tests.support.proxy_process import ProxyProcess
from tests.support.sandbox_client import SandboxClient
from tests.support.waiting import wait_for

VARIABLE = "NEMESIS_SEED"
LASTS_S = 20.0
TOKEN_LIFETIME_S = 8.0
DRAIN_S = 5.0
LONGEST_STREAM_S = 6.0
RELOADS_APART_S = 4.0
RECOVERS_WITHIN_S = 15.0  # the longest pause between two calls of an issuer is 10 s
CAST = Cast(streams=24, chats=6, embeddings=4, hostile=8)
REQUESTS_MOST = 25  # in a worker: less than there are callers


class Nemesis:
    """Does one thing after the other, each drawn from its dice."""

    def __init__(self, dice: Random, troubles: Troubles, upheavals: Upheavals) -> None:
        self._dice, self._troubles, self._upheavals = dice, troubles, upheavals
        self._moves: tuple[Callable[[], None], ...] = (
            *(self._trouble_upstream, self._trouble_upstream, troubles.trouble_issuer, troubles.ease_issuer),
            *(troubles.refuse_tokens, self._reload, self._kill),
        )

    def act(self, load: Load, turn: Callable[[], None]) -> None:
        """For its time; after each move the books take their turn."""
        until = time.monotonic() + LASTS_S
        while time.monotonic() < until:
            self._dice.choice(self._moves)()
            time.sleep(self._dice.uniform(0.2, 1.5))
            load.check()
            turn()
        self._troubles.end()

    def _trouble_upstream(self) -> None:
        self._troubles.trouble_upstream(self._dice.randint(1, 4), times_most=6)

    def _reload(self) -> None:
        if time.monotonic() - max(self._upheavals.reloads, default=0.0) > RELOADS_APART_S:
            self._troubles.note("reload")
            self._upheavals.reload()

    def _kill(self) -> None:
        self._troubles.note("a worker is killed")
        self._upheavals.kill(self._dice.choice(self._upheavals.workers()))


def test_what_must_always_be_true_is_true_whatever_fails_together(tmp_path: Path) -> None:
    seed = int(os.environ.get(VARIABLE) or secrets.randbelow(10**6))
    with SandboxClient.start(TOKEN_LIFETIME_S) as sandbox:
        scene = Scene(sandbox)
        config = scene.config(workers=2, drain_s=DRAIN_S, requests_most=REQUESTS_MOST)
        proxy = ProxyProcess.start(config, tmp_path)
        troubles = Troubles(sandbox, Random(seed))
        try:
            broken = _face(Random(seed), sandbox, scene, proxy, tmp_path / f"{proxy.port}.log", troubles)
        except BaseException as error:
            error.add_note(_story(seed, troubles))
            raise
        finally:
            proxy.stop()
    assert not broken, f"{broken}\n{_story(seed, troubles)}"


def _face(
    dice: Random, sandbox: SandboxClient, scene: Scene, proxy: ProxyProcess, log_file: Path, troubles: Troubles
) -> list[str]:
    """Whatever was not true of the requests, or of the proxy after them."""
    register, upheavals, log = Register("nemesis-"), Upheavals(proxy, DRAIN_S), AccessLog(log_file)
    books = Books(register, log, sandbox.take_ended, upheavals, issuer_fails=True)
    load = Load(
        proxy.port,
        register,
        CAST,
        scene.keys,
        seed=dice.randrange(10**6),
        longest_s=LONGEST_STREAM_S,
        body_most_bytes=BODY_MOST_BYTES,
    )
    kept = CAST.streams + CAST.chats + CAST.embeddings + CAST.hostile
    with always_true(proxy, sandbox, secrets=scene.secrets, kept=kept, breaks=True, within_s=20), load:
        Nemesis(dice, troubles, upheavals).act(load, books.turn)
    totals = final_totals(proxy)
    wait_for(lambda: sandbox.state()["open"] == 0)
    books.turn(is_last=True)
    tokens = sandbox.state()["tokens"]
    wait_for(lambda: _is_served(proxy, scene.keys.good), RECOVERS_WITHIN_S)
    return [
        *(f"{rule}: {books.broken[rule]}" for rule in books.broken if books.broken[rule]),
        *differences(totals, log, kills=len(upheavals.kills)),
        *(f"tokens {state}: {tokens[state]}" for state in ("expired", "bad", "missing") if tokens[state]),
        *scene.leaks(log_file, totals.page),
        *([] if books.outcomes["ok"] and tokens["valid"] else ["nothing was served"]),
        *([] if register.started == sum(books.outcomes.values()) else ["requests that were not settled"]),
    ]


def _is_served(proxy: ProxyProcess, key: str) -> bool:
    body, fields = {"model": "after", "messages": messages()}, {"Authorization": f"Bearer {key}"}
    try:
        return httpx.post(proxy.url + CHAT, json=body, headers=fields, trust_env=False, timeout=10).status_code == 200
    except httpx.TransportError:
        return False


def _story(seed: int, troubles: Troubles) -> str:
    return "\n".join([f"{VARIABLE}={seed}", *troubles.history])
