"""Workers that are killed, and a proxy that is told to end while streams run and callers wait."""

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.always_true import BODY, CHAT, Watch, always_true
from tests.support.load import ask_at_once
from tests.support.process_facts import descriptors_of, processes_of, refuses, workers_of
from tests.support.proxy_process import ProxyProcess
from tests.support.raw_http import RawCaller, field_of, status_of
from tests.support.sandbox_client import SandboxClient
from tests.support.shifted_clock import ShiftedClock
from tests.support.source_table import MARK, config_of, source_of
from tests.support.token_issuer import Issuer
from tests.support.waiting import wait_for

STREAM = {**BODY, "stream": True, "sandbox_frames": 20, "sandbox_interval_ms": 250}
FIRST_FRAME = b"\n\n\r\n"
WHOLE = b"data: [DONE]\n\n\r\n0\r\n\r\n"
LAST_CHUNK = b"\r\n0\r\n\r\n"
BROKE_OFF = b"The upstream stream broke off."
STREAMS_MOST = 24
SERVES_AGAIN_WITHIN_S = 2.0
CALLERS = 20
HOUR_S = 3600.0


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


class Stream:
    """A stream that has begun, with its place among the requests that are watched."""

    def __init__(self, proxy: ProxyProcess, watch: Watch, stack: ExitStack, body: dict[str, Any] = STREAM) -> None:
        self.id = watch.request_id(may_be_lost=True)
        self._watch = watch
        self._caller = stack.enter_context(RawCaller(proxy.port, timeout_s=30))
        self._caller.post(CHAT, body, f"X-Request-Id: {self.id}", "Connection: close")
        self._start = self._caller.read_until(FIRST_FRAME)
        assert status_of(self._start) == 200

    def rest(self) -> bytes:
        """All of it, to the end."""
        return self._watch.saw(self._start + self._caller.read_to_end(30))


def streams_on_both(proxy: ProxyProcess, watch: Watch, stack: ExitStack) -> list[Stream]:
    """Streams until each worker has at least three connections: one may be a look at /healthz."""
    streams: list[Stream] = []
    while any(descriptors_of(worker, proxy.port)["caller"] < 3 for worker in workers_of(proxy)):
        assert len(streams) < STREAMS_MOST
        streams.append(Stream(proxy, watch, stack))
    return streams


def test_killed_worker_ends_its_own_streams_alone_and_no_token_is_fetched(
    tmp_path: Path, own_sandbox: SandboxClient, worker_class: str, stack: ExitStack
) -> None:
    proxy = ProxyProcess.start(own_sandbox.config(server={"workers": 2, "worker_class": worker_class}), tmp_path)
    try:
        assert set(ask_at_once(proxy, 10)) == {200}
        with always_true(proxy, own_sandbox, kept=STREAMS_MOST, breaks=True, within_s=15) as watch:
            streams = streams_on_both(proxy, watch, stack)
            os.kill(min(workers_of(proxy)), signal.SIGKILL)
            ends = {stream.id: stream.rest() for stream in streams}
            whole = {name for name, end in ends.items() if end.endswith(WHOLE)}
            broken = {name for name, end in ends.items() if not end.endswith(LAST_CHUNK) and b"[DONE]" not in end}
            assert len(whole) + len(broken) == len(streams)
            assert min(len(whole), len(broken)) >= 2
            watch.lost -= whole
        assert own_sandbox.state()["fetches"] == 1
    finally:
        assert proxy.stop() == 0


def test_worker_that_comes_for_a_killed_one_serves_at_once_without_a_fetch(
    tmp_path: Path, own_sandbox: SandboxClient, worker_class: str
) -> None:
    proxy = ProxyProcess.start(own_sandbox.config(server={"worker_class": worker_class}), tmp_path)
    try:
        with always_true(proxy, own_sandbox, breaks=True) as watch:
            assert watch.chat().status_code == 200
            wait_for(lambda: watch.ids[-1] in proxy.log())  # its line comes just after its last byte
            (worker,) = workers_of(proxy)
            os.kill(worker, signal.SIGKILL)
            wait_for(lambda: worker not in workers_of(proxy))
            # The connection waits in the master's listener: the answer is the new worker's first.
            assert watch.ask(json=BODY, timeout=SERVES_AGAIN_WITHIN_S).status_code == 200
        assert own_sandbox.state()["fetches"] == 1
    finally:
        assert proxy.stop() == 0


def test_term_signal_turns_everybody_new_away_and_cuts_what_still_streams_when_the_drain_is_over(
    tmp_path: Path, sandbox: SandboxClient, worker_class: str, stack: ExitStack
) -> None:
    settings = sandbox.config(server={"workers": 2, "worker_class": worker_class, "drain_s": 3})
    proxy = ProxyProcess.start(settings, tmp_path)
    try:
        with always_true(proxy, sandbox, ends=True) as watch:
            short = Stream(proxy, watch, stack, {**STREAM, "sandbox_frames": 8})
            long = Stream(proxy, watch, stack, {**STREAM, "sandbox_frames": 400})
            watch.lost.clear()
            proxy.signal(signal.SIGTERM)
            wait_for(lambda: refuses(proxy))
            assert short.rest().endswith(WHOLE)
            cut = long.rest()
            assert cut.count(BROKE_OFF) == 1
            assert cut.endswith(LAST_CHUNK)
            assert b"[DONE]" not in cut
            assert proxy.process.wait(20) == 0
        assert processes_of(proxy.process.pid) == set()
        assert "Traceback" not in proxy.log()
    finally:
        proxy.stop()


def look_at(path: str, watch: Watch) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: p\r\nX-Request-Id: {watch.request_id()}\r\n\r\n".encode()


def test_proxy_that_drains_is_not_ready_and_says_so_on_a_kept_connection(
    tmp_path: Path, sandbox: SandboxClient, worker_class: str, stack: ExitStack
) -> None:
    settings = sandbox.config(server={"worker_class": worker_class, "drain_s": 10})
    proxy = ProxyProcess.start(settings, tmp_path)
    try:
        with always_true(proxy, sandbox, ends=True, within_s=15) as watch:
            stream = Stream(proxy, watch, stack)
            balancer = stack.enter_context(RawCaller(proxy.port))
            balancer.send(look_at("/readyz", watch))
            assert status_of(balancer.read_until(b"}")) == 200
            proxy.signal(signal.SIGTERM)
            wait_for(lambda: refuses(proxy))
            balancer.send(look_at("/readyz", watch))
            answer = watch.saw(balancer.read_to_end())
            assert status_of(answer) == 503
            assert field_of(answer, "Connection") == "close"
            assert stream.rest().endswith(WHOLE)
            assert proxy.process.wait(20) == 0
    finally:
        proxy.stop()


def callers_at_once(proxy: ProxyProcess, watch: Watch, stack: ExitStack, body: dict[str, Any]) -> list[RawCaller]:
    """Requests on connections of their own, of which nothing is read yet and which stay open on the callers' side."""
    callers = [stack.enter_context(RawCaller(proxy.port, timeout_s=30)) for _ in range(CALLERS)]
    for caller in callers:
        caller.post(CHAT, body, f"X-Request-Id: {watch.request_id()}", "Connection: close")
    return callers


def test_callers_that_do_not_close_their_end_hold_nobody_up(
    tmp_path: Path, sandbox: SandboxClient, worker_class: str, stack: ExitStack
) -> None:
    proxy = ProxyProcess.start(sandbox.config(server={"worker_class": worker_class, "drain_s": 60}), tmp_path)
    try:
        with always_true(proxy, sandbox, kept=CALLERS) as watch:
            callers = callers_at_once(proxy, watch, stack, BODY)
            assert {status_of(watch.saw(caller.read_to_end())) for caller in callers} == {200}
            assert watch.chat().status_code == 200  # and a look at /healthz is silent after 5 s
        proxy.signal(signal.SIGTERM)
        assert proxy.process.wait(20) == 0
    finally:
        proxy.stop()


def test_term_signal_while_all_wait_for_a_dead_issuer_answers_them_and_ends_long_before_the_drain_is_over(
    tmp_path: Path, sandbox: SandboxClient, worker_class: str, stack: ExitStack
) -> None:
    with Issuer() as issuer:
        issuer.behave(lambda peer: issuer.drip(peer, b"", every_s=0.1))  # until the other side has had enough
        settings = config_of(sandbox, {"m": source_of(issuer.url)}, worker_class=worker_class, drain_s=60)
        proxy = ProxyProcess.start(settings, tmp_path)
        try:
            with always_true(proxy, sandbox, secrets=[MARK], ends=True, within_s=15) as watch:
                callers = callers_at_once(proxy, watch, stack, BODY)
                (worker,) = workers_of(proxy)
                wait_for(lambda: issuer.connections > 0 and descriptors_of(worker, proxy.port)["caller"] >= CALLERS)
                proxy.signal(signal.SIGTERM)
                assert {status_of(watch.saw(caller.read_to_end(30))) for caller in callers} == {503}
                assert proxy.process.wait(20) == 0
        finally:
            proxy.stop()


@pytest.mark.parametrize("step_s", [HOUR_S, -HOUR_S], ids=["on", "back"])
def test_drain_takes_as_long_as_ever_when_the_wall_clock_is_set_meanwhile(
    tmp_path: Path, sandbox: SandboxClient, worker_class: str, stack: ExitStack, step_s: float
) -> None:
    clock = ShiftedClock(tmp_path)
    settings = sandbox.config(server={"worker_class": worker_class, "drain_s": 5})
    proxy = ProxyProcess.start(settings, tmp_path, clock.environ)
    try:
        with always_true(proxy, sandbox, ends=True) as watch:
            short = Stream(proxy, watch, stack, {**STREAM, "sandbox_frames": 12})
            long = Stream(proxy, watch, stack, {**STREAM, "sandbox_frames": 400})
            watch.lost.clear()
            proxy.signal(signal.SIGTERM)
            wait_for(lambda: refuses(proxy))
            clock.step_to(step_s)
            assert short.rest().endswith(WHOLE)
            assert BROKE_OFF in long.rest()
            assert proxy.process.wait(20) == 0
        (line,) = [line for line in proxy.access_lines() if long.id in line]
        assert "outcome=cut" in line  # and not by a limit of its own, such as the upstream's total_s
    finally:
        proxy.stop()
