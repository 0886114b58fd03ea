"""SIGHUP, ten times, while kept connections ask and streams run: nobody notices but those whom the new config means."""

import hashlib
import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.support.always_true import BODY, CHAT, Watch, always_true
from tests.support.load import Load
from tests.support.process_facts import refuses, workers_of
from tests.support.proxy_process import ProxyProcess
from tests.support.raw_http import RawCaller, status_of
from tests.support.sandbox_client import SandboxClient
from tests.support.waiting import wait_for

RELOADS = 10
STEADY = "steady-key-1"
STREAM = {**BODY, "stream": True, "sandbox_frames": 24, "sandbox_interval_ms": 250}
FIRST_FRAME = b"\n\n\r\n"
WHOLE = b"data: [DONE]\n\n\r\n0\r\n\r\n"
SERVES_AGAIN_WITHIN_S = 2.0
SECRET_FIELD = "X-App-Secret"


class KeptLoad(Load):
    """Callers that keep their connections, as SDKs do; `outcomes` counts statuses and errors."""

    def __init__(self, proxy: ProxyProcess, key: str) -> None:
        super().__init__([proxy])
        self.outcomes: Counter[str] = Counter()
        self._url = proxy.url + CHAT
        self._fields = {"Authorization": f"Bearer {key}"}

    def _repeat(self) -> None:
        with httpx.Client(verify=False, trust_env=False, timeout=30, headers=self._fields) as client:
            while not self._stopped.wait(0.02):
                try:
                    self.outcomes[str(client.post(self._url, json=BODY).status_code)] += 1
                except httpx.HTTPError as error:
                    self.outcomes[type(error).__name__] += 1


class Config:
    """The proxy's config file, its keys and its secret, as an operator changes them."""

    def __init__(self, proxy: ProxyProcess, folder: Path, secret: Path) -> None:
        self._proxy = proxy
        self._file = folder / f"{proxy.port}.yaml"
        self._secret = secret
        self._settings: dict[str, Any] = yaml.safe_load(self._file.read_text())

    def change(self, number: int) -> None:
        """Key, model and secret number N in the place of the ones before."""
        self._settings["client_keys"] = keys(number)
        self._settings["upstreams"][0]["models"] = models(number)
        self._secret.write_text(secret_of(number))
        self._file.write_text(yaml.safe_dump(self._settings))

    def reload(self) -> None:
        """Send SIGHUP; returns when workers have come that were not there before."""
        before = workers_of(self._proxy)
        self._proxy.signal(signal.SIGHUP)
        wait_for(lambda: len(workers_of(self._proxy) - before) == 2, 15)


def key_of(number: int) -> str:
    return f"marked-key-{number:02}"


def secret_of(number: int) -> str:
    return f"marked-secret-{number:02}"


def keys(number: int) -> list[dict[str, str]]:
    digests = {"steady": STEADY, "changing": key_of(number)}
    return [{"label": label, "sha256": hashlib.sha256(key.encode()).hexdigest()} for label, key in digests.items()]


def models(number: int) -> dict[str, str]:
    return {"m": "m", f"alias-{number}": "m"}


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_ten_reloads_under_load_fail_no_request_and_take_keys_rules_and_secrets_anew(
    tmp_path: Path, own_sandbox: SandboxClient, worker_class: str, stack: ExitStack
) -> None:
    secret = tmp_path / "secret"
    secret.write_text(secret_of(0))
    settings = own_sandbox.config(
        server={"workers": 2, "worker_class": worker_class, "drain_s": 60},
        upstream={"models": models(0), "headers": {SECRET_FIELD: {"file": str(secret)}}},
        client_keys=keys(0),
    )
    proxy = ProxyProcess.start(settings, tmp_path)
    try:
        config, marked = Config(proxy, tmp_path, secret), [STEADY]
        marked += [value for number in range(RELOADS + 1) for value in (key_of(number), secret_of(number))]
        with always_true(proxy, own_sandbox, secrets=marked, kept=10, within_s=30) as watch:
            stream = stack.enter_context(RawCaller(proxy.port, timeout_s=60))
            body = {**BODY, "stream": True, "sandbox_frames": 60, "sandbox_interval_ms": 250}
            fields = (f"Authorization: Bearer {STEADY}", f"X-Request-Id: {watch.request_id()}", "Connection: close")
            stream.post(CHAT, body, *fields)
            assert status_of(stream.read_until(FIRST_FRAME)) == 200
            with KeptLoad(proxy, STEADY) as load:
                for number in range(1, RELOADS + 1):
                    config.change(number)
                    config.reload()
            assert watch.saw(stream.read_to_end(60)).endswith(WHOLE)
            assert set(load.outcomes) == {"200"}, load.outcomes
            wait_for(lambda: len(workers_of(proxy)) == 2, 30)  # those before go on for as long as somebody needs them
            assert watch.chat(key=key_of(RELOADS), model=f"alias-{RELOADS}").status_code == 200
            assert dict(map(tuple, own_sandbox.last()["headers"]))[SECRET_FIELD] == secret_of(RELOADS)
            assert watch.chat(key=key_of(0)).status_code == 401
            assert watch.chat(key=STEADY, model="alias-0").status_code == 404
        assert own_sandbox.state()["fetches"] == 1
    finally:
        assert proxy.stop() == 0


@pytest.fixture
def reloaded(tmp_path: Path, own_sandbox: SandboxClient, worker_class: str) -> Iterator[ProxyProcess]:
    """One worker that has served, and drain_s is long."""
    proxy = ProxyProcess.start(own_sandbox.config(server={"worker_class": worker_class, "drain_s": 60}), tmp_path)
    try:
        yield proxy
    finally:
        proxy.stop()


def reload_beside_a_stream(proxy: ProxyProcess, watch: Watch, stack: ExitStack) -> tuple[RawCaller, int]:
    """A stream that goes on in the worker before, and the worker that is new."""
    stream = stack.enter_context(RawCaller(proxy.port, timeout_s=30))
    stream.post(CHAT, STREAM, f"X-Request-Id: {watch.request_id()}", "Connection: close")
    stream.read_until(FIRST_FRAME)
    (before,) = workers_of(proxy)
    proxy.signal(signal.SIGHUP)
    wait_for(lambda: len(workers_of(proxy)) == 2)
    (new,) = workers_of(proxy) - {before}
    assert watch.chat().status_code == 200
    return stream, new


def test_worker_that_is_killed_after_a_reload_is_replaced_while_an_old_stream_still_runs(
    reloaded: ProxyProcess, own_sandbox: SandboxClient, stack: ExitStack
) -> None:
    with always_true(reloaded, own_sandbox, kept=2, breaks=True, within_s=15) as watch:
        stream, new = reload_beside_a_stream(reloaded, watch, stack)
        wait_for(lambda: watch.ids[-1] in reloaded.log())  # its line comes just after its last byte
        os.kill(new, signal.SIGKILL)
        wait_for(lambda: new not in workers_of(reloaded))
        assert watch.ask(json=BODY, timeout=SERVES_AGAIN_WITHIN_S).status_code == 200
        assert watch.saw(stream.read_to_end(30)).endswith(WHOLE)
    assert own_sandbox.state()["fetches"] == 1


def test_term_signal_after_a_reload_counts_at_once_while_an_old_stream_still_runs(
    reloaded: ProxyProcess, own_sandbox: SandboxClient, stack: ExitStack
) -> None:
    with always_true(reloaded, own_sandbox, ends=True, within_s=15) as watch:
        stream, _ = reload_beside_a_stream(reloaded, watch, stack)
        reloaded.signal(signal.SIGTERM)
        wait_for(lambda: refuses(reloaded))
        assert watch.saw(stream.read_to_end(30)).endswith(WHOLE)
        assert reloaded.process.wait(20) == 0
