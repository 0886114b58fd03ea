"""Callers that take their time: half a head, half a body, an answer that nobody reads.

The limits are 10 s, 30 s and 60 s and no setting, so each kind is tried by many callers at once and in one test.
"""

import socket
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.always_true import Watch, always_true
from tests.support.proxy_process import ProxyFarm, ProxyProcess
from tests.support.raw_answers import answers_of
from tests.support.raw_http import RawCaller, error_of
from tests.support.sandbox_client import SandboxClient
from tests.support.worker_memory import WorkerMemory

CHAT = "/v1/chat/completions"
BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hello"}], "stream": True}
KIB = 1024
COUNT = 500
UNREAD = 20
# 300 of them are 19 MB: more than all buffers on the way hold.
FRAME = b'data: {"choices":[{"delta":{"content":"' + b"x" * 64_000 + b'"}}]}\n\n'

SHORT_FRAME = FRAME[:1000] + FRAME[-10:]


@pytest.mark.timeout(90)
def test_500_half_heads_and_500_half_bodies_are_ended_while_others_are_served(
    tmp_path: Path, sandbox: SandboxClient
) -> None:
    """With gevent alone: threads are as many as there are slow callers, and so not for the open network."""
    proxy = ProxyProcess.start(sandbox.config(), tmp_path)
    try:
        with always_true(proxy, sandbox) as watch, ExitStack() as stack:
            assert watch.chat().status_code == 200
            heads = [stack.enter_context(RawCaller(proxy.port)) for _ in range(COUNT)]
            for caller in heads:
                caller.send(f"POST {CHAT} HTTP/1.1\r\nHost: p\r\nX-Drip: ".encode())
            bodies = [stack.enter_context(RawCaller(proxy.port)) for _ in range(COUNT)]
            for caller in bodies:
                head = f"POST {CHAT} HTTP/1.1\r\nHost: p\r\nX-Request-Id: {watch.request_id()}\r\n"
                caller.send(f'{head}Content-Length: 100\r\n\r\n{{"model":'.encode())
            until = time.monotonic() + 6
            while time.monotonic() < until:
                assert watch.chat(stream=True).status_code == 200
                for caller in heads + bodies:
                    caller.send(b"m")  # a drip keeps nothing alive
                time.sleep(1)
            for caller in heads:
                assert caller.read_to_end(within_s=15) == b""
            assert watch.chat().status_code == 200
            for caller in bodies:
                answer = watch.saw(caller.read_to_end(within_s=40))
                assert [each.status for each in answers_of(answer)] == [408]
                assert error_of(answer)["code"] == "body_timeout"
        assert len(sandbox.log()) >= 3
        assert {entry["model"] for entry in sandbox.log()} == {"m"}
    finally:
        assert proxy.stop() == 0


@pytest.mark.timeout(180)
def test_callers_that_never_read_are_cut_after_60_s(farm: ProxyFarm, sandbox: SandboxClient) -> None:
    """Both worker classes at once, since it takes its time."""
    proxies = [farm.proxy(sandbox.config(server={"worker_class": name})) for name in ("gevent", "gthread")]
    sandbox.frames(*[FRAME] * 300)
    with (
        always_true(proxies[0], sandbox, kept=UNREAD) as one,
        always_true(proxies[1], kept=UNREAD) as other,
        ExitStack() as stack,
    ):
        for proxy, watch in zip(proxies, (one, other), strict=True):
            for _ in range(UNREAD):
                ask_and_never_read(stack, proxy, watch)
        sandbox.wait_until(lambda state: state["open"] == 2 * UNREAD, within_s=20)
        sandbox.wait_until(lambda state: state["open"] == 0, within_s=90)
    for proxy, watch in zip(proxies, (one, other), strict=True):
        lines = [line for line in proxy.access_lines() if any(name in line for name in watch.ids)]
        assert len(lines) == UNREAD
        assert all(fact_of(line, "duration_ms") > 50_000 for line in lines)
        assert "Traceback" not in proxy.log()


def ask_and_never_read(stack: ExitStack, proxy: ProxyProcess, watch: Watch) -> None:
    caller = stack.enter_context(RawCaller(proxy.port))
    caller.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    caller.post(CHAT, BODY, f"X-Request-Id: {watch.request_id()}")


def test_callers_that_never_read_take_at_most_64_kib_each(farm: ProxyFarm, sandbox: SandboxClient) -> None:
    """A frame is sent whole, so one of 64 KB takes more."""
    proxy = farm.proxy(sandbox.config(server={"worker_class": "gevent"}))
    sandbox.frames(*[SHORT_FRAME] * 10)
    read_all(proxy)
    memory = WorkerMemory(proxy)
    sandbox.frames(*[SHORT_FRAME] * 20_000)
    with always_true(proxy, sandbox, kept=UNREAD) as watch, ExitStack() as stack:
        for _ in range(UNREAD):
            ask_and_never_read(stack, proxy, watch)
        sandbox.wait_until(lambda state: state["open"] == UNREAD, within_s=20)
        time.sleep(4)  # until all buffers on the way are full
        growth = memory.growth()
    assert growth < UNREAD * 64 * KIB


def read_all(proxy: ProxyProcess) -> None:
    """As many streams at once, so that what the worker needs for them is there."""
    with ExitStack() as stack:
        callers = [stack.enter_context(RawCaller(proxy.port)) for _ in range(UNREAD)]
        for caller in callers:
            caller.post(CHAT, BODY, "Connection: close")
        for caller in callers:
            assert caller.read_to_end(within_s=60).endswith(b"0\r\n\r\n")


def fact_of(line: str, name: str) -> int:
    return int(next(word for word in line.split() if word.startswith(f"{name}=")).partition("=")[2])
