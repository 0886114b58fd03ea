"""Processes that hold a token each, made as the app makes it, without HTTP in front: gunicorn's workers in the raw.

`run` starts this file as a process of its own, which forks before it has any thread; what the children find comes
back as JSON.
"""

import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from loguru import logger

from bench.token_proofs.proxies import Config
from config import load
from proxy.app import build_parts
from proxy.errors import TokenUnavailable
from proxy.tokens.holder import TokenHolder
from proxy.tokens.token import Token
from sandbox.tokens import TokenMint, signing_key
from tests.support.proxy_process import ROOT

_ENDS_WITHIN_S = 600.0
_PAUSE_S = 0.25  # of a caller that was turned away
_DRAWN_TOGETHER = 50
ON_THE_WAY_S = 0.08  # from a draw to its check: as a slow network would take to the upstream
STALLED_S = 0.5  # less than the guard of a token of 3 s: what is checked later says nothing about its holder

Found = list[dict[str, Any]]


def run(job: str, config: Config, folder: Path, *, processes: int, threads: int, amount: float) -> Found:
    """What each process found: `cold` or `draw`, see below. They share the runtime folder, as those of one host do."""
    file = folder / "holders.yaml"
    file.write_text(yaml.safe_dump(config))
    words = [sys.executable, "-m", "bench.token_proofs.holder_processes", job, *map(str, (processes, threads, amount))]
    environ = {**os.environ, "LLM_PROXY_CONFIG": str(file), "XDG_RUNTIME_DIR": str(folder)}
    done = subprocess.run(words, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=_ENDS_WITHIN_S)
    assert done.returncode == 0, done.stderr[-2000:]
    return list(json.loads(done.stdout))


def cold(holder: TokenHolder, start: Any, threads: int, seconds: float) -> dict[str, Any]:
    """Threads that have no token ask for one at the same instant, and go on for so many seconds.

    Gives for each thread when its first call ended (`time.monotonic`) and whether with a token, and the slowest call.
    """
    first: list[tuple[float, bool]] = []
    slowest: list[float] = []
    until = [0.0]
    barrier = threading.Barrier(threads + 1)

    def call() -> tuple[float, bool, float]:
        began = time.monotonic()
        try:
            holder.token()
            good = True
        except TokenUnavailable:
            good = False
        ended = time.monotonic()
        return ended, good, ended - began

    def caller() -> None:
        barrier.wait()
        ended, good, took = call()
        first.append((ended, good))
        slowest.append(took)
        while time.monotonic() < until[0]:
            time.sleep(_PAUSE_S)
            slowest.append(call()[2])

    callers = [threading.Thread(target=caller) for _ in range(threads)]
    for one in callers:
        one.start()
    start.wait()
    began = time.monotonic()
    until[0] = began + seconds
    barrier.wait()
    for one in callers:
        one.join()
    return {"began": began, "first": first, "slowest_s": max(slowest), "calls": len(slowest)}


def draw(holder: TokenHolder, start: Any, threads: int, calls: float) -> dict[str, Any]:
    """So many tokens drawn in all, each checked against the real clock a moment later, as an upstream would.

    Gives how many were found valid, expired and so on, and how many calls were turned away.
    """
    mint = TokenMint(signing_key(), 1.0)  # the lifetime is of no matter to a check
    found: list[Counter[str]] = [Counter() for _ in range(threads)]

    def caller(counts: Counter[str]) -> None:
        left = int(calls) // threads
        while left > 0:
            began = time.monotonic()
            tokens = _drawn(holder, min(left, _DRAWN_TOGETHER))
            left -= len(tokens)
            time.sleep(ON_THE_WAY_S)
            states: Counter[str] = Counter(mint.check(token.value).state for token in tokens)
            if time.monotonic() - began > STALLED_S:
                states = Counter({"stalled": len(tokens)})  # of use for nothing: this process stood still
            counts.update(states)
            if not tokens:
                counts["turned away"] += 1
                time.sleep(_PAUSE_S)

    callers = [threading.Thread(target=caller, args=(counts,)) for counts in found]
    start.wait()
    for one in callers:
        one.start()
    for one in callers:
        one.join()
    return dict(sum(found, Counter()))


def _drawn(holder: TokenHolder, most: int) -> list[Token]:
    """So many tokens, one after the other; fewer where the holder has none to give."""
    tokens = []
    with suppress(TokenUnavailable):
        for _ in range(most):
            tokens.append(holder.token())
    return tokens


def main() -> None:
    job, processes, threads, amount = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    logger.remove()
    fork = multiprocessing.get_context("fork")
    start, results, settings = fork.Barrier(processes), fork.Queue(), load()

    def child() -> None:
        holder = build_parts(settings).holders["corp"]
        results.put({"cold": cold, "draw": draw}[job](holder, start, threads, amount))
        holder.close()

    children = [fork.Process(target=child) for _ in range(processes)]
    for one in children:
        one.start()
    print(json.dumps([results.get(timeout=_ENDS_WITHIN_S) for _ in children]))
    for one in children:
        one.join()


if __name__ == "__main__":
    main()
