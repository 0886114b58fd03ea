"""Several hosts with one Redis: proxies whose runtime folders differ, so that only Redis connects them."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.load import Load, ask_at_once
from tests.support.proxy_process import ProxyProcess
from tests.support.redis_server import RedisServer
from tests.support.sandbox_client import SandboxClient

LIFETIME_S = 6.0
RENEWED_AFTER_LEAST_S = 2.4  # 40 % of the life


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as server:
        yield server


class Hosts:
    """Proxies with two workers each; every one has a folder of its own. `log` tells what they all wrote."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self._stack = stack
        self._folder = folder
        self._proxies: list[ProxyProcess] = []

    def start(self, settings: dict[str, Any]) -> ProxyProcess:
        folder = self._folder / f"host-{len(self._proxies) + 1}"
        folder.mkdir()
        proxy = ProxyProcess.start(settings, folder)
        self._stack.callback(proxy.stop)
        self._proxies.append(proxy)
        return proxy

    def log(self) -> str:
        return "\n".join(proxy.log() for proxy in self._proxies)


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    with ExitStack() as stack:
        yield Hosts(stack, tmp_path)


def config(sandbox: SandboxClient, server: RedisServer, worker_class: str = "gevent", **source: Any) -> dict[str, Any]:
    settings = sandbox.config(
        server={"worker_class": worker_class, "workers": 2}, token_store={"type": "redis", "url": server.url}
    )
    settings["token_sources"]["corp"].update(source)
    return settings


def test_two_hosts_and_a_late_third_make_one_fetch(
    hosts: Hosts, own_sandbox: SandboxClient, redis_server: RedisServer, worker_class: str
) -> None:
    own_sandbox.faults(issuer=[{"kind": "delay", "delay_s": 0.5}])
    settings = config(own_sandbox, redis_server, worker_class)
    both = [hosts.start(settings), hosts.start(settings)]
    with Load(both):
        assert set(ask_at_once(both[0], 20) + ask_at_once(both[1], 20)) == {200}
    assert set(ask_at_once(hosts.start(settings), 20)) == {200}
    assert own_sandbox.state()["fetches"] == 1, hosts.log()


def test_hosts_share_each_renewal_and_notice_nothing_of_a_redis_that_stops_and_comes_back(
    hosts: Hosts, redis_server: RedisServer, worker_class: str
) -> None:
    with SandboxClient.start(token_lifetime_s=LIFETIME_S) as sandbox:
        both = [hosts.start(config(sandbox, redis_server, worker_class)) for _ in range(2)]
        with Load(both) as load:
            load.run(7)
            shared = sandbox.state()["fetches"]
            redis_server.stop()
            load.run(6)
            alone = sandbox.state()["fetches"] - shared
            redis_server.start()
            load.run(5)
        assert set(load.statuses) == {200}
        assert sum(sandbox.state()["tokens"].values()) == sandbox.state()["tokens"]["valid"]
        assert shared <= 1 + 9 / RENEWED_AFTER_LEAST_S
        assert alone <= 2 * (1 + 7 / RENEWED_AFTER_LEAST_S)


def test_frozen_redis_holds_no_request_up(hosts: Hosts, own_sandbox: SandboxClient, redis_server: RedisServer) -> None:
    redis_server.freeze()
    proxy = hosts.start(config(own_sandbox, redis_server))
    assert set(ask_at_once(proxy, 20)) == {200}
    assert own_sandbox.state()["fetches"] <= 2


def test_hosts_agree_on_the_one_token_that_their_issuer_lets_live(hosts: Hosts, redis_server: RedisServer) -> None:
    with SandboxClient.start(token_lifetime_s=LIFETIME_S, single_active=True) as sandbox:
        sandbox.faults(issuer=[{"kind": "delay", "delay_s": 0.3}])  # the old token has ended, the new one is on its way
        both = [hosts.start(config(sandbox, redis_server, issuer="single_active")) for _ in range(2)]
        assert set(ask_at_once(both[0], 8) + ask_at_once(both[1], 8)) == {200}
        with Load(both) as load:
            load.run(15)
        assert set(load.statuses) == {200}
        assert sandbox.state()["fetches"] <= 2 + 17 / RENEWED_AFTER_LEAST_S


def test_redis_that_is_away_ends_no_token_of_a_single_active_issuer_early(
    hosts: Hosts, redis_server: RedisServer
) -> None:
    with SandboxClient.start(token_lifetime_s=20.0, single_active=True) as sandbox:
        both = [hosts.start(config(sandbox, redis_server, issuer="single_active")) for _ in range(2)]
        with Load(both) as load:
            load.run(1)
            redis_server.stop()
            load.run(13)  # a renewal has been due for at least three seconds
            assert sandbox.state()["fetches"] == 1
            redis_server.start()
            load.run(6)
        assert set(load.statuses) == {200}
        assert sandbox.state()["fetches"] <= 3
