"""Rates of client keys with a Redis: what one key may send counts over all workers of all hosts."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.support.load import BODY
from tests.support.proxy_process import ProxyProcess
from tests.support.raw_http import RawCaller, status_of
from tests.support.redis_server import RedisServer
from tests.support.sandbox_client import SandboxClient
from tests.support.waiting import wait_for

PER_MINUTE = 12
BURST = 400
OF_BURST = 300


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as server:
        yield server


@pytest.fixture
def start(
    tmp_path: Path, sandbox: SandboxClient, redis_server: RedisServer, worker_class: str
) -> Iterator[Callable[[int], list[ProxyProcess]]]:
    """Starts so many proxies at once, with two workers each, which only Redis connects."""
    settings = sandbox.config(
        server={"worker_class": worker_class, "workers": 2, "threads": BURST},
        upstream={"timeouts": {"connect_s": 30, "first_byte_s": 30, "idle_s": 30, "total_s": 60}},  # a burst takes long
        token_store={"type": "redis", "url": redis_server.url},
        client_keys=[
            {"label": label, "sha256": hashlib.sha256(label.encode()).hexdigest(), "requests_per_minute": most}
            for label, most in {"limited": PER_MINUTE, "burst": OF_BURST, "warm-up": 10**6}.items()
        ],
    )
    with ExitStack() as stack:

        def start_one(number: int) -> ProxyProcess:
            folder = tmp_path / f"host-{number}"
            folder.mkdir()
            proxy = ProxyProcess.start(settings, folder)
            stack.callback(proxy.stop)
            return proxy

        def start_all(count: int) -> list[ProxyProcess]:
            with ThreadPoolExecutor(count) as pool:
                return list(pool.map(start_one, range(count)))

        yield start_all


def ask(proxy: ProxyProcess, key: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"}
    # A connection for each, so that every worker gets some.
    return httpx.post(f"{proxy.url}/v1/chat/completions", json=BODY, headers=headers, trust_env=False, timeout=30)


def ask_by_twos(host: ProxyProcess, key: str, rounds: int) -> Counter[int]:
    """Statuses of two requests at a time, that many times."""
    with ThreadPoolExecutor(2) as pool:
        return Counter(pool.map(lambda _: ask(host, key).status_code, range(2 * rounds)))


def ask_at_once(hosts: list[ProxyProcess], key: str, count: int) -> Counter[int]:
    """Statuses of so many requests in all, each on a connection of its own; none is read before the last is sent."""
    with ExitStack() as stack:
        callers = [stack.enter_context(RawCaller(host.port)) for _ in range(count // len(hosts)) for host in hosts]
        for caller in callers:
            caller.post("/v1/chat/completions", BODY, f"Authorization: Bearer {key}", "Connection: close")
        return Counter(status_of(caller.read_to_end(60)) for caller in callers)


def test_burst_passes_exactly_the_rate_over_all_workers_and_hosts_that_have_just_started(
    start: Callable[[int], list[ProxyProcess]], redis_server: RedisServer
) -> None:
    hosts = start(2)
    assert ask_at_once(hosts, "burst", BURST) == {200: OF_BURST, 429: BURST - OF_BURST}
    assert redis_server.client.llen("llm-proxy:rates:burst") == OF_BURST
    answer = ask(hosts[0], "burst")
    assert answer.json()["error"]["code"] == "rate_limit_exceeded"
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert "rates: Redis is away" not in hosts[0].log() + hosts[1].log()


@pytest.mark.parametrize("fault", ["stopped", "frozen"])
def test_without_redis_each_worker_counts_for_itself(
    start: Callable[[int], list[ProxyProcess]], redis_server: RedisServer, fault: str
) -> None:
    [host] = start(1)
    assert ask_by_twos(host, "warm-up", 4) == {200: 8}
    if fault == "frozen":
        redis_server.freeze()
    else:
        redis_server.stop()
    statuses = ask_by_twos(host, "limited", 25)
    assert set(statuses) == {200, 429}
    assert PER_MINUTE <= statuses[200] <= 2 * PER_MINUTE  # a worker may have had none
    wait_for(lambda: "rates: Redis is away" in host.log())
    assert host.log().count("rates: Redis is away") <= 2  # a line from each worker
