"""How soon a proxy that has just started answers a RAGFlow whose user adds models: `python -m bench.cold [RUNS]`.

Each run starts a proxy with nothing of an earlier one: no token, no client, no connection. It prints the medians, with
the same calls a second time for comparison, and writes nothing. The clients' own imports are not in the figures.
"""

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.machine_facts import cpu_model
from tests.support.proxy_process import ProxyProcess
from tests.support.ragflow import Ragflow
from tests.support.sandbox_client import SandboxClient

RUNS = 9
CHAT, EMBEDDING, RERANK = "sandbox-chat", "sandbox-embedding", "sandbox-rerank"


def steps(ragflow: Ragflow) -> dict[str, Callable[[], object]]:
    """What RAGFlow does, in its order."""
    return {
        "models list": ragflow.list_models,
        'stream of "Hi", to its first text': lambda: asyncio.run(ragflow.first_text(CHAT)),
        "embedding": lambda: ragflow.embed(EMBEDDING, ["Test if the api key is available"]),
        "rerank": lambda: ragflow.rerank(RERANK, "What's the weather?", ["Is it sunny today?"]),
    }


def measure(ragflow: Ragflow) -> dict[str, float]:
    """Milliseconds of each step."""
    taken_ms = {}
    for name, step in steps(ragflow).items():
        began = time.perf_counter()
        step()
        taken_ms[name] = (time.perf_counter() - began) * 1000
    return taken_ms


def run_once(sandbox: SandboxClient) -> tuple[dict[str, float], dict[str, float]]:
    """The steps at a proxy that has just started, and once more."""
    with tempfile.TemporaryDirectory() as folder:
        proxy = ProxyProcess.start(sandbox.config(), Path(folder))
        try:
            return measure(Ragflow(proxy.api)), measure(Ragflow(proxy.api))
        finally:
            proxy.stop()


def main(runs: int) -> None:
    with SandboxClient.start() as sandbox:
        run_once(sandbox)  # the clients in this process are not to be cold
        found = [run_once(sandbox) for _ in range(runs)]
    print(f"{cpu_model()}, {os.cpu_count()} cores; medians of {runs} starts\n")
    print("| step | cold | again |\n| --- | --- | --- |")
    for name in found[0][0]:
        print(row(name, [(cold[name], again[name]) for cold, again in found]))
    print(row("all four", [(sum(cold.values()), sum(again.values())) for cold, again in found]))
    print(f"\nThe slowest start: {max(sum(cold.values()) for cold, _ in found):.0f} ms for all four.")


def row(name: str, taken_ms: list[tuple[float, float]]) -> str:
    cold, again = (statistics.median(column) for column in zip(*taken_ms, strict=True))
    return f"| {name} | {cold:.0f} ms | {again:.0f} ms |"


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else RUNS)
