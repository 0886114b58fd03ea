"""No usable token, or one that the upstream refuses: one call for all who wait, one replay for each, and no restart."""

import resource
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.always_true import BODY, CHAT, Watch, always_true
from tests.support.load import ask_at_once
from tests.support.proxy_process import ProxyProcess
from tests.support.raw_http import RawCaller, field_of, status_of
from tests.support.sandbox_client import SandboxClient
from tests.support.source_table import MARK, config_of, source_of, token_of
from tests.support.token_issuer import Issuer
from tests.support.waiting import wait_for

WAITING = 40
REVOKED_AT_ONCE = 1000


@pytest.fixture(scope="module", autouse=True)
def descriptors() -> None:
    """As many as this user may have: a thousand callers, and the upstream that is started here, need them."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with Issuer() as issuer:
        yield issuer


@pytest.fixture
def callers() -> Iterator[list[RawCaller]]:
    """Connections that a test opens; closed after it."""
    opened: list[RawCaller] = []
    yield opened
    for caller in opened:
        caller.close()


def post(callers: list[RawCaller], proxy: ProxyProcess, watch: Watch, count: int) -> None:
    """Send that many chat completions, each on a connection of its own, and read no answer yet."""
    callers += [RawCaller(proxy.port, timeout_s=30) for _ in range(count)]
    for caller in callers[-count:]:
        caller.post(CHAT, BODY, f"X-Request-Id: {watch.request_id()}", "Connection: close")


def read(callers: list[RawCaller], watch: Watch) -> list[bytes]:
    answers = [watch.saw(caller.read_to_end(30)) for caller in callers]
    for caller in callers:
        caller.close()
    return answers


@pytest.mark.parametrize("fault", ["silent", "refuses-to-talk"])
def test_all_who_wait_for_a_dead_issuer_fail_by_one_call_and_are_served_once_it_lives(
    tmp_path: Path, own_sandbox: SandboxClient, issuer: Issuer, callers: list[RawCaller], fault: str
) -> None:
    if fault == "silent":
        issuer.behave(lambda peer: issuer.drip(peer, b"", every_s=0.1))  # until the other side has had enough
    else:
        issuer.answer(b"", 500)
    settings = config_of(own_sandbox, {"m": source_of(issuer.url)}, workers=2)
    proxy = ProxyProcess.start(settings, tmp_path)
    try:
        with always_true(proxy, own_sandbox, secrets=[MARK], kept=WAITING) as watch:
            called = issuer.connections
            post(callers, proxy, watch, WAITING)
            select.select([caller.sock for caller in callers], [], [], 20)
            assert issuer.connections <= called + (1 if fault == "silent" else 2)
            answers = read(callers, watch)
            assert {status_of(answer) for answer in answers} == {503}
            assert all(int(field_of(answer, "Retry-After") or 0) >= 1 for answer in answers)
            issuer.answer({"access_token": token_of(own_sandbox), "expires_in": 300})
            wait_for(lambda: watch.chat().status_code == 200, 15)
    finally:
        assert proxy.stop() == 0


def test_token_that_is_revoked_under_a_thousand_requests_is_fetched_once_and_each_is_replayed_once(
    tmp_path: Path, own_sandbox: SandboxClient, callers: list[RawCaller]
) -> None:
    proxy = ProxyProcess.start(own_sandbox.config(server={"workers": 2}), tmp_path)
    try:
        assert set(ask_at_once(proxy, 10)) == {200}
        own_sandbox.faults(issuer=[{"kind": "delay", "delay_s": 2}])  # so that all are refused before it answers
        own_sandbox.revoke()
        came = len(own_sandbox.log())
        with always_true(proxy, own_sandbox, kept=REVOKED_AT_ONCE, within_s=15) as watch:
            post(callers, proxy, watch, REVOKED_AT_ONCE)
            answers = read(callers, watch)
        assert [status_of(answer) for answer in answers] == [200] * REVOKED_AT_ONCE
        assert own_sandbox.state()["fetches"] == 2
        findings = [entry["token"] for entry in own_sandbox.log()[came:]]
        assert findings.count("valid") == REVOKED_AT_ONCE
        assert findings.count("revoked") <= REVOKED_AT_ONCE
        assert set(findings) == {"valid", "revoked"}
    finally:
        assert proxy.stop() == 0
