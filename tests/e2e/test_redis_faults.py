"""A Redis that loses all, is slow, drips or stands still: the token stays, and neither requests nor streams wait."""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.always_true import BODY, CHAT, Watch, always_true
from tests.support.load import Load
from tests.support.loopback_server import LoopbackServer
from tests.support.proxy_process import ProxyProcess
from tests.support.raw_http import RawCaller
from tests.support.redis_server import RedisServer
from tests.support.sandbox_client import SandboxClient
from tests.support.waiting import wait_for

SLOW_MS = 400
DRIP_S = 0.2


@pytest.fixture
def worker_class() -> str:
    """The default alone: threads have limits of gunicorn's own here."""
    return "gevent"


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as server:
        yield server


def config(sandbox: SandboxClient, server: "RedisServer | DrippingRedis", worker_class: str) -> dict[str, Any]:
    return sandbox.config(
        server={"worker_class": worker_class, "workers": 2}, token_store={"type": "redis", "url": server.url}
    )


def begin_stream(proxy: ProxyProcess, watch: Watch, stack: ExitStack) -> RawCaller:
    caller = stack.enter_context(RawCaller(proxy.port, timeout_s=30))
    body = {**BODY, "stream": True, "sandbox_frames": 20, "sandbox_interval_ms": 100}
    caller.post(CHAT, body, f"X-Request-Id: {watch.request_id()}", "Connection: close")
    return caller


def records(server: RedisServer) -> int:
    return len([name for name in server.client.keys("llm-proxy:*") if not name.endswith(b":lock")])


class DrippingRedis(LoopbackServer):
    """Sends an answer without an end, byte by byte, each of them in time for a read."""

    def __init__(self) -> None:
        self._closed = threading.Event()
        super().__init__()
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def _serve(self, sock: socket.socket) -> None:
        sock.recv(1)
        while not self._closed.wait(DRIP_S):
            sock.sendall(b"+")

    def close(self) -> None:
        self._closed.set()
        super().close()


def flush(server: RedisServer, stack: ExitStack) -> None:
    server.client.flushall()


def restart(server: RedisServer, stack: ExitStack) -> None:
    server.stop()
    server.start()


def freeze(server: RedisServer, stack: ExitStack) -> None:
    server.freeze()
    stack.callback(server.thaw)


def slow_down(server: RedisServer, stack: ExitStack) -> None:
    """Hold every command up, again and again until the test's end."""
    ended = threading.Event()

    def pause() -> None:
        while not ended.wait(SLOW_MS / 1000):
            server.client.client_pause(SLOW_MS)

    thread = threading.Thread(target=pause)
    thread.start()
    stack.callback(thread.join)
    stack.callback(ended.set)


@pytest.mark.parametrize("fault", [flush, restart, freeze, slow_down])
def test_token_stays_and_streams_end_while_redis_is_at_fault(
    tmp_path: Path, own_sandbox: SandboxClient, redis_server: RedisServer, worker_class: str, fault: Any
) -> None:
    proxy = ProxyProcess.start(config(own_sandbox, redis_server, worker_class), tmp_path)
    try:
        with always_true(proxy, own_sandbox, kept=20) as watch, Load([proxy]) as load, ExitStack() as stack:
            assert watch.chat().status_code == 200
            wait_for(lambda: records(redis_server) == 1)
            streams = [begin_stream(proxy, watch, stack) for _ in range(4)]
            with ExitStack() as faults:
                fault(redis_server, faults)
                streams += [begin_stream(proxy, watch, stack) for _ in range(4)]
                # While Redis is still at fault: a stream that waited for it would not end here.
                assert all(watch.saw(stream.read_to_end(20)).count(b"data: [DONE]") == 1 for stream in streams)
        assert set(load.statuses) == {200}
        assert own_sandbox.state()["fetches"] == 1
    finally:
        assert proxy.stop() == 0


@pytest.mark.parametrize("worker_class", ["gevent", "gthread"])
def test_redis_that_drips_from_the_first_connection_on_keeps_no_request_from_its_token(
    tmp_path: Path, own_sandbox: SandboxClient, worker_class: str
) -> None:
    with DrippingRedis() as server:
        proxy = ProxyProcess.start(config(own_sandbox, server, worker_class), tmp_path)
        try:
            with always_true(proxy, own_sandbox, kept=4) as watch:
                assert [watch.chat().status_code for _ in range(8)] == [200] * 8
        finally:
            assert proxy.stop() == 0
