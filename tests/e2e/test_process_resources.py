"""Descriptors that run out, and a log that nobody can write: requests are served all the same."""

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.always_true import BODY, CHAT, always_true
from tests.support.load import ask_at_once
from tests.support.process_facts import descriptors_of, workers_of
from tests.support.proxy_process import ProxyProcess, free_port, launch
from tests.support.raw_http import RawCaller, field_of, status_of
from tests.support.sandbox_client import SandboxClient
from tests.support.waiting import wait_for

DESCRIPTORS = 200
SPARE = 20
SERVES_AGAIN_WITHIN_S = 2.0
STREAM = {**BODY, "stream": True, "sandbox_frames": 400, "sandbox_interval_ms": 250}
FIRST_FRAME = b"\n\n\r\n"
WHOLE = b"data: [DONE]\n\n\r\n0\r\n\r\n"
LAST_CHUNK = b"\r\n0\r\n\r\n"


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def proxy(tmp_path: Path, sandbox: SandboxClient, worker_class: str) -> Iterator[ProxyProcess]:
    """One worker, that has served."""
    proxy = ProxyProcess.start(sandbox.config(server={"worker_class": worker_class, "threads": 150}), tmp_path)
    try:
        assert ask_at_once(proxy, 1) == [200]
        yield proxy
    finally:
        assert proxy.stop() == 0


def allow(pid: int, descriptors: int) -> None:
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (descriptors, descriptors))


def test_our_own_limit_answers_before_the_descriptors_run_out(
    proxy: ProxyProcess, sandbox: SandboxClient, stack: ExitStack
) -> None:
    (before,) = workers_of(proxy)
    allow(proxy.process.pid, DESCRIPTORS)  # far fewer than max_concurrent_requests wants
    proxy.signal(signal.SIGHUP)
    wait_for(lambda: before not in workers_of(proxy) and len(workers_of(proxy)) == 1, 15)
    assert ask_at_once(proxy, 1) == [200]
    with always_true(proxy, sandbox, kept=DESCRIPTORS, within_s=10) as watch:
        answer, streams = b"HTTP/1.1 200 ", 0
        while status_of(answer) == 200:
            caller = stack.enter_context(RawCaller(proxy.port))
            caller.post(CHAT, STREAM, f"X-Request-Id: {watch.request_id()}")
            answer = watch.saw(caller.read_until(b"}"))
            streams += 1
            assert streams < DESCRIPTORS
        assert status_of(answer) == 503
        assert field_of(answer, "Content-Type") == "application/json"
        assert int(field_of(answer, "Retry-After") or 0) >= 1
        assert streams > DESCRIPTORS / 5
        stack.close()
        wait_for(lambda: watch.chat().status_code == 200, SERVES_AGAIN_WITHIN_S)
    assert "Too many open files" not in proxy.log()
    (told,) = [line for line in proxy.log().splitlines() if "server.max_concurrent_requests: " in line]
    assert " WARNING " in told
    assert f"a worker has {DESCRIPTORS} file descriptors" in told


def test_worker_without_a_free_descriptor_goes_on_and_serves_again_once_there_are_some(
    proxy: ProxyProcess, sandbox: SandboxClient, stack: ExitStack
) -> None:
    with always_true(proxy, sandbox) as watch:
        (worker,) = workers_of(proxy)
        most = sum(descriptors_of(worker, proxy.port).values()) + SPARE
        allow(worker, most)
        stream = stack.enter_context(RawCaller(proxy.port))
        stream.post(CHAT, {**STREAM, "sandbox_frames": 8}, f"X-Request-Id: {watch.request_id()}", "Connection: close")
        stream.read_until(FIRST_FRAME)
        with ExitStack() as idle:
            for _ in range(2 * SPARE):
                idle.enter_context(RawCaller(proxy.port))
            wait_for(lambda: sum(descriptors_of(worker, proxy.port).values()) >= most - 2)
            assert watch.saw(stream.read_until(LAST_CHUNK)).endswith(WHOLE)
        wait_for(lambda: watch.chat().status_code == 200, SERVES_AGAIN_WITHIN_S)
        assert workers_of(proxy) == {worker}


def full_disk(log: Path) -> int | None:
    log.symlink_to("/dev/full")
    return None


def closed_pipe(log: Path) -> int | None:
    """A pipe whose reader is there when the proxy opens it, and is to go."""
    os.mkfifo(log)
    return os.open(log, os.O_RDONLY | os.O_NONBLOCK)


@pytest.mark.parametrize("spoil", [full_disk, closed_pipe])
@pytest.mark.parametrize("line_format", ["text", "json"])
def test_requests_are_served_where_no_log_line_can_be_written(
    tmp_path: Path, own_sandbox: SandboxClient, worker_class: str, spoil: object, line_format: str
) -> None:
    assert callable(spoil)
    port = free_port()
    reader = spoil(tmp_path / f"{port}.log")
    settings = own_sandbox.config(
        server={"workers": 2, "worker_class": worker_class}, logging={"format": line_format, "level": "DEBUG"}
    )
    (tmp_path / "no.log").touch()
    # What could not be written waits in a buffer up to the master's end, as it does outside of containers.
    process = launch(settings, tmp_path, port, {"PYTHONUNBUFFERED": ""})
    proxy = ProxyProcess(process, port, tmp_path / "no.log")
    try:
        if reader is not None:
            os.close(reader)
        proxy._wait_until_alive()
        before = workers_of(proxy)
        own_sandbox.faults(upstream=[{"kind": "stream_reset", "model": "cut"}, {"kind": "reset", "model": "broken"}])
        for _ in range(3):
            assert set(ask_at_once(proxy, 20)) == {200}
            with RawCaller(port) as caller:
                caller.post(CHAT, {**STREAM, "model": "cut"}, "Connection: close")
                assert b"The upstream stream broke off." in caller.read_to_end()
            with RawCaller(port) as caller:
                caller.post(CHAT, {**BODY, "model": "broken"}, "Connection: close")
                assert status_of(caller.read_to_end()) == 502
        assert workers_of(proxy) == before
        own_sandbox.wait_until(lambda state: state["open"] == 0)
    finally:
        assert proxy.stop() == 0
