"""Two hosts and a real Redis: one fetch a window for both, and no request fails while Redis is stopped and started.

Each host is a gunicorn of its own with a runtime folder of its own; nothing but Redis joins them.
"""

import math
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import redis

from bench.token_proofs.issuer import Issuer
from bench.token_proofs.load import Load, failures, statuses
from bench.token_proofs.proxies import config_for, running, wait_for, warm_up
from bench.token_proofs.rows import Lab, Row
from tests.support.proxy_process import free_port
from tests.support.sandbox_client import SandboxClient

WORKERS = 2
PER_SECOND = 20
EARLIEST_RENEWAL = 0.4  # of the lifetime: no token of this length is renewed at an earlier age


class _RedisServer:
    """A redis-server on loopback that keeps nothing on disk, so that after a restart it is empty."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = shutil.which("redis-server") or shutil.which("valkey-server")
        assert command is not None, "neither redis-server nor valkey-server is installed"
        words = [command, "--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen(
            words, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_for(self._answers, 10, "Redis that answers")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        with suppress(redis.RedisError), redis.Redis(port=self.port, socket_timeout=1) as client:
            return bool(client.ping())
        return False


def two_hosts(lab: Lab) -> Row:
    lifetime_s, together_s, away_s = (12.0, 26.0, 12.0) if lab.quick else (60.0, 150.0, 80.0)
    with _redis(lab) as server, SandboxClient.start() as sandbox, Issuer(lifetime_s, delay_s=0.2) as issuer:
        store = {"type": "redis", "url": f"redis://127.0.0.1:{server.port}/0"}
        config = config_for(sandbox, issuer, workers=WORKERS, token_store=store)
        with ExitStack() as stack:
            proxies = [stack.enter_context(running(config, lab.place("host"))) for _ in range(2)]
            for proxy in proxies:
                warm_up(proxy, WORKERS)
            loads = [stack.enter_context(Load(proxy.port, per_second=PER_SECOND, threads=4)) for proxy in proxies]
            first = _wait_and_count(lab, issuer, together_s, "Redis runs") + 1  # the one for the warming up
            server.stop()
            alone = _wait_and_count(lab, issuer, away_s, "Redis is away")
            server.start()
            # Each host has a token of its own still; from its renewal on there is one for both again.
            _wait_and_count(lab, issuer, lifetime_s, "Redis is back")
            again = _wait_and_count(lab, issuer, together_s, "Redis runs")
            samples = [sample for load in loads for sample in load.samples()]
    most = math.floor(together_s / (EARLIEST_RENEWAL * lifetime_s)) + 1
    least = math.floor(together_s / (lifetime_s / 2 + 1))
    bad = failures(samples)
    return Row(
        "two hosts",
        f"2 proxies with folders of their own, one Redis, {lifetime_s:.0f} s tokens; Redis stopped for {away_s:.0f} s "
        f"under {2 * PER_SECOND} requests/s",
        f"{first} fetches for both in {together_s:.0f} s, {again} in as long after Redis was back ({alone} while it "
        f"was away); {len(bad)} of {len(samples)} requests failed",
        f"{least} to {most} fetches, as for one host; 0 failed",
        least <= first <= most and least <= again <= most and not bad,
        {
            "fetches": {"together": first, "redis_away": alone, "together_again": again},
            "statuses": statuses(samples),
            "longest_ms": round(1000 * max(sample.took_s for sample in samples), 1),
        },
    )


@contextmanager
def _redis(lab: Lab) -> Iterator[_RedisServer]:
    server = _RedisServer(lab.place("redis"))
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _wait_and_count(lab: Lab, issuer: Issuer, seconds: float, what: str) -> int:
    """How many fetches there were in so many seconds."""
    before = len(issuer.calls)
    time.sleep(seconds)
    lab.say("two hosts", f"{what}: {len(issuer.calls) - before} fetches in {seconds:.0f} s")
    return len(issuer.calls) - before
