"""Connections to upstreams that nobody needs any more, in a worker that nobody asks any more."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.always_true import always_true
from tests.support.process_facts import descriptors_of, workers_of
from tests.support.proxy_process import ProxyProcess
from tests.support.sandbox_client import SandboxClient
from tests.support.waiting import wait_for

SHORT_IDLE_WAIT = "tests/support/short_idle_wait.py"


@pytest.fixture
def quick(tmp_path: Path, sandbox: SandboxClient, worker_class: str) -> Iterator[ProxyProcess]:
    """A proxy that keeps an idle upstream connection for a second."""
    config = sandbox.config(server={"worker_class": worker_class})
    proxy = ProxyProcess.start(config, tmp_path, {"GUNICORN_CMD_ARGS": f"-c {SHORT_IDLE_WAIT}"})
    yield proxy
    proxy.stop()


def outgoing(proxy: ProxyProcess) -> int:
    return sum(descriptors_of(worker, proxy.port)["outgoing"] for worker in workers_of(proxy))


def test_idle_connections_are_closed_by_the_clock_and_the_next_request_opens_one(
    quick: ProxyProcess, sandbox: SandboxClient
) -> None:
    assert outgoing(quick) == 0
    with always_true(quick, sandbox, kept=0) as watch:
        for _ in range(2):
            assert watch.chat().status_code == 200
            assert watch.chat(stream=True).content.endswith(b"data: [DONE]\n\n")
            wait_for(lambda: outgoing(quick) == 0)
    assert len(sandbox.log()) == 4
