"""What an issuer may say instead of a good token: refused or accepted by the rules, never shown, never followed."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from email.utils import formatdate

import pytest

from proxy.tokens.token import boot_clock
from tests.support.always_true import always_true
from tests.support.process_facts import workers_of
from tests.support.proxy_process import ProxyProcess
from tests.support.sandbox_client import SandboxClient
from tests.support.source_table import MARK, config_of, source_of, token_of, tokens_sent
from tests.support.token_issuer import Issuer, answer_of

# TOKEN stands for a token that the upstream takes, so that only our own rules keep it out.
REFUSED = {
    "html": b"<!DOCTYPE html><title>s3cret-mark</title>",
    "empty": b"",
    "truncated": b'{"access_token": "TOKEN", "expi',
    "error": b'{"error": "s3cret-mark"}',
    "missing": b'{"token": "TOKEN"}',
    "no-string": b'{"access_token": ["TOKEN"]}',
    "cr": b'{"access_token": "TOKEN\\r"}',
    "lf": b'{"access_token": "TOKEN\\nX-Injected: s3cret-mark"}',
    "non-ascii": b'{"access_token": "TOKEN\\u00e9"}',
    "mac": b'{"access_token": "TOKEN", "token_type": "mac"}',
    "zero": b'{"access_token": "TOKEN", "expires_in": 0}',
    "negative": b'{"access_token": "TOKEN", "expires_in": -1}',
    "nan": b'{"access_token": "TOKEN", "expires_in": NaN}',
    "infinite": b'{"access_token": "TOKEN", "expires_in": 1e309}',
    "true": b'{"access_token": "TOKEN", "expires_in": true}',
}
ACCEPTED = {
    "digits": b'{"access_token": "TOKEN", "expires_in": "300"}',
    "absent": b'{"access_token": "TOKEN"}',
    "bearer": b'{"access_token": "TOKEN", "token_type": "bearer", "expires_in": 300}',
}
# Status, Retry-After, the shortest pause between two calls, and how long a caller is told to wait at most.
PAUSES = {
    "seconds": (429, "7", 7.0, 8),
    "seconds-of-503": (503, "7", 7.0, 8),
    "date": (429, "date", 18.0, 22),
    "ages": (429, "1000000000", 60.0, 61),
    "no-number": (429, "1e9", 0.5, 6),
    "junk": (503, "soon", 0.5, 6),
    "negative-pause": (429, "-5", 0.5, 6),
}
REFUSED_PAUSE_S = 30.0
REFUSALS = {
    "invalid-client-401": (401, "invalid_client"),
    "invalid-client-400": (400, "invalid_client"),
    "invalid-grant": (400, "invalid_grant"),
}
REDIRECTS = {"found": 302, "temporary": 307, "permanent": 308}


class Replies:
    """A proxy with a source for each row of the tables, and the issuer that gives that reply."""

    def __init__(self, sandbox: SandboxClient, proxy_folder: pytest.TempPathFactory, stack: ExitStack) -> None:
        self.sandbox = sandbox
        self.token = token_of(sandbox)
        self.elsewhere = stack.enter_context(Issuer())
        names = (*REFUSED, *ACCEPTED, *PAUSES, *REFUSALS, *REDIRECTS)
        self.issuers = {name: stack.enter_context(Issuer()) for name in names}
        for name, body in {**REFUSED, **ACCEPTED}.items():
            self.issuers[name].answer(body.replace(b"TOKEN", self.token.encode()))
        for name, (status, retry_after, _, _) in PAUSES.items():
            self._put_off(self.issuers[name], status, retry_after)
        for name, (status, code) in REFUSALS.items():
            self.issuers[name].answer({"error": code, "error_description": MARK}, status)
        for name, status in REDIRECTS.items():
            self.issuers[name].answer(b"", status, Location=self.elsewhere.url)
        sources = {name: source_of(issuer.url) for name, issuer in self.issuers.items()}
        self.began = boot_clock()
        self.proxy = ProxyProcess.start(config_of(sandbox, sources), proxy_folder.mktemp("replies"))

    def check_calls(self, name: str, pause_s: float) -> None:
        """The issuer was called, and never before the pause was over."""
        assert 1 <= len(self.issuers[name].received) <= 1 + (boot_clock() - self.began) / pause_s

    def _put_off(self, issuer: Issuer, status: int, retry_after: str) -> None:
        def value() -> str:
            return formatdate(time.time() + 20, usegmt=True) if retry_after == "date" else retry_after

        issuer.behave(lambda peer: peer.sendall(answer_of(b"", status, Retry_After=value())))


@pytest.fixture(scope="module")
def replies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replies]:
    with ExitStack() as stack:
        replies = Replies(stack.enter_context(SandboxClient.start()), tmp_path_factory, stack)
        yield replies
        assert replies.proxy.stop() == 0


@pytest.mark.parametrize("name", REFUSED)
def test_reply_that_is_no_good_token_is_a_failed_fetch_and_is_shown_nowhere(replies: Replies, name: str) -> None:
    sent = len(replies.sandbox.log())
    with always_true(replies.proxy, replies.sandbox, secrets=[MARK, replies.token]) as watch:
        answer = watch.chat(model=name)
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) >= 1
    assert len(replies.sandbox.log()) == sent
    assert f"token source {name}: " in replies.proxy.log()


@pytest.mark.parametrize("name", ACCEPTED)
def test_reply_that_is_good_enough_is_sent(replies: Replies, name: str) -> None:
    with always_true(replies.proxy, replies.sandbox, secrets=[MARK]) as watch:
        assert watch.chat(model=name).status_code == 200
    assert tokens_sent(replies.sandbox)[-1] == (replies.token, name)
    assert len(replies.issuers[name].received) == 1


@pytest.mark.parametrize("name", PAUSES)
def test_retry_after_of_the_issuer_is_obeyed_and_capped_and_junk_is_not(replies: Replies, name: str) -> None:
    _, _, pause_s, told_most_s = PAUSES[name]
    with always_true(replies.proxy, replies.sandbox, secrets=[MARK]) as watch:
        answers = [watch.chat(model=name) for _ in range(10)]
    assert [answer.status_code for answer in answers] == [503] * 10
    told = [int(answer.headers["Retry-After"]) for answer in answers]
    assert 1 <= min(told) <= max(told) <= told_most_s
    replies.check_calls(name, pause_s)


@pytest.mark.parametrize("name", REFUSALS)
def test_refused_credentials_are_told_once_and_tried_again_much_later(replies: Replies, name: str) -> None:
    status, code = REFUSALS[name]
    workers = workers_of(replies.proxy)
    with always_true(replies.proxy, replies.sandbox, secrets=[MARK]) as watch:
        assert {watch.chat(model=name).status_code for _ in range(10)} == {503}
    errors = [line for line in replies.proxy.log().splitlines() if "ERROR" in line and f"token source {name}:" in line]
    assert [line.endswith(f"token endpoint: status {status}, {code}") for line in errors] == [True]
    replies.check_calls(name, REFUSED_PAUSE_S)
    assert workers_of(replies.proxy) == workers


@pytest.mark.parametrize("name", REDIRECTS)
def test_redirect_of_the_issuer_is_not_followed(replies: Replies, name: str) -> None:
    with always_true(replies.proxy, replies.sandbox, secrets=[MARK]) as watch:
        assert watch.chat(model=name).status_code == 503
    assert len(replies.issuers[name].received) >= 1
    assert replies.elsewhere.connections == 0
