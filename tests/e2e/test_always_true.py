"""The checker of what is always true goes red: each rule broken once, against a real proxy."""

import base64
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote_plus

import pytest

from tests.support.always_true import BODY, CHAT, Watch, always_true
from tests.support.proxy_process import ProxyProcess
from tests.support.raw_http import RawCaller
from tests.support.sandbox_client import SandboxClient
from tests.support.secret_traces import found_in

SECRET = "marked/secret+1"


def test_nothing_is_said_about_requests_that_went_well(proxy: ProxyProcess, sandbox: SandboxClient) -> None:
    with always_true(proxy, sandbox, secrets=[SECRET]) as watch:
        assert watch.chat().status_code == 200
        assert watch.ask("/nowhere").status_code == 404


def send_without_an_end(watch: Watch) -> None:
    watch.request_id()


def send_one_id_twice(watch: Watch) -> None:
    for _ in range(2):
        watch.ask(headers={"X-Request-Id": "twice"}, json=BODY)


def show_a_secret(watch: Watch) -> None:
    watch.saw(b"Basic " + base64.b64encode(b"user:" + SECRET.encode()))


def log_a_secret(watch: Watch) -> None:
    watch.chat(model=quote_plus(SECRET))


@pytest.mark.parametrize(
    ("act", "fault"),
    [
        (send_without_an_end, "no final line"),
        (send_one_id_twice, "several final lines"),
        (show_a_secret, "secrets are shown"),
        (log_a_secret, "secrets are shown"),
    ],
)
def test_each_broken_rule_is_told(
    proxy: ProxyProcess, sandbox: SandboxClient, act: Callable[[Watch], None], fault: str
) -> None:
    with pytest.raises(AssertionError, match=fault), always_true(proxy, sandbox, secrets=[SECRET]) as watch:
        act(watch)


def test_request_that_still_runs_is_told(proxy: ProxyProcess, sandbox: SandboxClient) -> None:
    sandbox.faults(upstream=[{"kind": "hang"}])

    def leave_one_running(caller: RawCaller) -> None:
        with always_true(proxy, sandbox, within_s=1):
            caller.post(CHAT, BODY)
            sandbox.wait_until(lambda state: state["open"] == 1)

    with RawCaller(proxy.port) as caller, pytest.raises(AssertionError, match="requests still run"):
        leave_one_running(caller)


def test_connection_that_is_left_is_told(proxy: ProxyProcess, sandbox: SandboxClient) -> None:
    def leave_half_a_head(stack: ExitStack) -> None:
        with always_true(proxy, sandbox, within_s=1):
            stack.enter_context(RawCaller(proxy.port)).send(b"GET ")

    with ExitStack() as stack, pytest.raises(AssertionError, match="descriptors"):
        leave_half_a_head(stack)


def test_proxy_that_has_ended_is_told(tmp_path: Path, sandbox: SandboxClient) -> None:
    proxy = ProxyProcess.start(sandbox.config(), tmp_path)
    with pytest.raises(AssertionError), always_true(proxy, sandbox, within_s=1):
        assert proxy.stop() == 0


@pytest.mark.parametrize("before", ["", "u:", "user:", "a-user:"])
@pytest.mark.parametrize("after", ["", ":x", "xyz"])
def test_secret_is_found_in_each_form(before: str, after: str) -> None:
    text = f"{before}{SECRET}{after}".encode()
    for form in (text, base64.b64encode(text), base64.urlsafe_b64encode(text), quote_plus(text).encode()):
        assert found_in(b"line " + form + b" end", [SECRET]) == ["mark…"]
    assert found_in(b"line marked/secret-1 end", [SECRET]) == []
