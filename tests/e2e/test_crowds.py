"""More idle connections than a worker takes: whoever has something to ask still gets in."""

from contextlib import ExitStack
from pathlib import Path

from tests.support.always_true import always_true
from tests.support.proxy_process import ProxyProcess
from tests.support.raw_http import RawCaller
from tests.support.sandbox_client import SandboxClient

COUNT = 1_020  # of 1,002 that one worker takes


def test_connections_that_stay_silent_keep_nobody_out(tmp_path: Path, sandbox: SandboxClient) -> None:
    """With gevent alone: threads are not for the open network."""
    proxy = ProxyProcess.start(sandbox.config(server={"max_concurrent_requests": 2}), tmp_path)
    try:
        with always_true(proxy, sandbox) as watch, ExitStack() as stack:
            for _ in range(COUNT):
                stack.enter_context(RawCaller(proxy.port))
            assert watch.chat().status_code == 200
    finally:
        assert proxy.stop() == 0
