"""An issuer that fails while the token is still valid: nobody notices, and the host tries again at a measured pace."""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from proxy.tokens.token import boot_clock
from tests.support.always_true import Watch, always_true
from tests.support.authority import Authority
from tests.support.proxy_process import ProxyProcess
from tests.support.sandbox_client import SandboxClient
from tests.support.scripted_upstream import reset
from tests.support.source_table import (
    MARK,
    config_of,
    put_stale_token,
    record_of,
    source_of,
    token_of,
    tokens_sent,
)
from tests.support.token_issuer import Issuer, answer_of
from tests.support.waiting import wait_for

HUGE_PIECES = 100
PIECE = b" " * 1024 * 1024
# The shortest pauses after failed renewals: 1, 2, 4, 8, 10, 10 ... s times 0.75.
PAUSES_S = (0.75, 1.5, 3.0, 6.0, *(7.5 for _ in range(20)))
COUNTED = ("500", "503", "reset", "tls-error", "wrong-name", "huge", "drip")
LETS_GO_WITHIN_S = 10.0


def send_huge(peer: socket.socket) -> None:
    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (HUGE_PIECES * len(PIECE)))
    for _ in range(HUGE_PIECES):
        peer.sendall(PIECE)


def tries_within(seconds: float) -> int:
    """How often a host may ask in that time, whatever the jitter."""
    return 1 + sum(sum(PAUSES_S[: count + 1]) <= seconds for count in range(len(PAUSES_S)))


class Failing:
    """A proxy of two workers; each of its sources has a valid token, due to be renewed, and an issuer with a fault."""

    def __init__(self, sandbox: SandboxClient, folder: Path, stack: ExitStack) -> None:
        self.sandbox = sandbox
        self.held = threading.Event()
        self.new_token = token_of(sandbox)
        self.issuers: dict[str, Issuer] = {}
        self._folder = folder
        self._sources = {"unknown-name": source_of("https://no-such-name.invalid/token")}
        self._add_plain(stack)
        self._add_tls(stack, Authority(folder))
        self._old_tokens = {name: token_of(sandbox) for name in self._sources}
        for name, source in self._sources.items():
            put_stale_token(source, folder, self._old_tokens[name])
        self.began = boot_clock()
        self.proxy = ProxyProcess.start(config_of(sandbox, self._sources, workers=2), folder)

    def watch(self) -> Any:
        return always_true(self.proxy, self.sandbox, secrets=[MARK], kept=len(self._sources))

    def failures(self, fault: str) -> int:
        return record_of(self._sources[fault], self._folder).failures

    def pause(self, fault: str) -> tuple[float, float]:
        """Until when no fetch is made, and until when the token is good: seconds of the boot clock."""
        record = record_of(self._sources[fault], self._folder)
        assert record.token is not None
        return record.retry_at, record.token.usable_until

    def check_served(self, watch: Watch, fault: str, count: int = 4) -> None:
        assert [watch.chat(model=fault).status_code for _ in range(count)] == [200] * count

    def wait_until_renewed(self, watch: Watch, fault: str) -> None:
        def is_renewed() -> bool:
            self.check_served(watch, fault, 1)
            return self.tokens_of(fault)[-1] == self.new_token

        wait_for(is_renewed, 15)

    def sends_old_tokens_alone(self, fault: str) -> bool:
        return {self._old_tokens[fault]} == set(self.tokens_of(fault))

    def tokens_of(self, fault: str) -> list[str]:
        """Those that came upstream with the requests for this model."""
        return [token for token, name in tokens_sent(self.sandbox) if name == fault]

    def _add_plain(self, stack: ExitStack) -> None:
        for fault in ("500", "503", "reset", "drip", "huge", "held", "mended", "retry-after"):
            self._add(fault, stack.enter_context(Issuer()))
        issuers = self.issuers
        issuers["500"].answer({"error": MARK}, 500)
        issuers["503"].answer(b"<html>s3cret-mark</html>", 503)
        issuers["reset"].behave(reset)
        issuers["drip"].behave(lambda peer: issuers["drip"].drip(peer, b" ", every_s=1.0))
        issuers["huge"].behave(send_huge)
        issuers["held"].behave(self._answer_when_let_go)
        issuers["mended"].answer(b"", 503)
        issuers["retry-after"].answer(b"", 503, Retry_After="1000000000")

    def _add_tls(self, stack: ExitStack, authority: Authority) -> None:
        for fault, host in (("tls-error", "127.0.0.1"), ("wrong-name", "issuer.example")):
            issuer = stack.enter_context(Issuer(authority.server_context(authority.issue(host))))
            self._add(fault, issuer, ca_bundle=str(authority.ca_bundle))
        self.issuers["tls-error"].behave_at_connect(lambda peer: peer.sendall(b"no TLS here"))

    def _add(self, fault: str, issuer: Issuer, **members: Any) -> None:
        self.issuers[fault] = issuer
        self._sources[fault] = source_of(issuer.url, **members)

    def _answer_when_let_go(self, peer: socket.socket) -> None:
        self.held.wait(LETS_GO_WITHIN_S)
        peer.sendall(answer_of({"access_token": self.new_token, "expires_in": 300}))


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Failing]:
    with ExitStack() as stack:
        failing = Failing(stack.enter_context(SandboxClient.start()), tmp_path_factory.mktemp("failing"), stack)
        yield failing
        assert failing.proxy.stop() == 0


@pytest.mark.parametrize("fault", [*COUNTED, "unknown-name"])
def test_valid_token_stays_in_use_while_its_issuer_fails_and_the_workers_back_off_together(
    failing: Failing, fault: str
) -> None:
    with failing.watch() as watch:

        def has_failed_twice() -> bool:
            failing.check_served(watch, fault)
            return failing.failures(fault) >= 2

        wait_for(has_failed_twice, 20)
    assert failing.sends_old_tokens_alone(fault)
    if fault in COUNTED:
        assert failing.issuers[fault].connections <= tries_within(boot_clock() - failing.began)
    assert f"token source {fault}: token endpoint: " in failing.proxy.log()


def test_requests_are_answered_while_a_renewal_is_on_its_way(failing: Failing) -> None:
    came = len(failing.issuers["held"].received)
    with failing.watch() as watch:
        try:
            wait_for(lambda: len(failing.issuers["held"].received) > came, 15)
            failing.check_served(watch, "held", 20)
            assert failing.sends_old_tokens_alone("held")
        finally:
            failing.held.set()
        failing.wait_until_renewed(watch, "held")


def test_issuer_that_answers_again_is_found_by_the_back_off_alone(failing: Failing) -> None:
    with failing.watch() as watch:
        wait_for(lambda: failing.failures("mended") >= 1)
        failing.check_served(watch, "mended")
        failing.issuers["mended"].answer({"access_token": failing.new_token, "expires_in": 300})
        failing.wait_until_renewed(watch, "mended")


def test_retry_after_of_ages_is_obeyed_for_half_of_what_the_token_has_left(failing: Failing) -> None:
    with failing.watch() as watch:
        wait_for(lambda: failing.failures("retry-after") >= 1)
        failing.check_served(watch, "retry-after", 20)
    calls, seen = failing.issuers["retry-after"].connections, boot_clock()
    retry_at, usable_until = failing.pause("retry-after")
    assert 1 <= calls <= 1 + (seen - failing.began) / 60.0
    assert retry_at >= failing.began + min(60.0, (usable_until - seen) / 2)
    assert usable_until - retry_at >= (usable_until - seen) / 2
