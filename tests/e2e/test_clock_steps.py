"""The wall clock is set, an hour on and an hour back, while requests and streams run: only dates follow."""

import hashlib
import time
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.always_true import BODY, CHAT, Watch, always_true
from tests.support.load import Load
from tests.support.proxy_process import ProxyProcess
from tests.support.raw_http import RawCaller
from tests.support.sandbox_client import SandboxClient
from tests.support.shifted_clock import ShiftedClock

HOUR_S = 3600.0
LIFETIME_S = 4.0
RENEWED_AFTER_LEAST_S = 0.4 * LIFETIME_S
EACH_S = 0.65 * LIFETIME_S  # a renewal falls into it: one is due after half of a life at the latest
KEYS = {"steady": "steady-key-1", "slow": "slow-key-12", "short": "short-key-1"}
LONG = {**BODY, "stream": True, "sandbox_frames": 34, "sandbox_interval_ms": 250}


@pytest.fixture
def worker_class() -> str:
    """The default alone: threads have limits of gunicorn's own here."""
    return "gevent"


def client_keys() -> list[dict[str, Any]]:
    members: dict[str, dict[str, Any]] = {
        "steady": {},
        "slow": {"requests_per_minute": 1},
        "short": {"expires_at": (datetime.now(UTC) + timedelta(minutes=30)).isoformat()},
    }
    return [
        {"label": label, "sha256": hashlib.sha256(key.encode()).hexdigest(), **members[label]}
        for label, key in KEYS.items()
    ]


def shown_s(watch: Watch) -> float:
    """How far the wall clock of the worker that answers is off."""
    date = parsedate_to_datetime(watch.ask("/healthz", method="GET").headers["Date"])
    return (date - datetime.now(UTC)).total_seconds()


def test_steps_of_an_hour_make_no_storm_and_send_no_expired_token(tmp_path: Path, worker_class: str) -> None:
    clock, began = ShiftedClock(tmp_path), time.monotonic()
    with SandboxClient.start(token_lifetime_s=LIFETIME_S) as sandbox:
        settings = sandbox.config(server={"workers": 2, "worker_class": worker_class})
        proxy = ProxyProcess.start(settings, tmp_path, clock.environ)
        try:
            with always_true(proxy, sandbox, kept=6) as watch, RawCaller(proxy.port, timeout_s=30) as stream:
                with Load([proxy]) as load:
                    stream.post(CHAT, LONG, f"X-Request-Id: {watch.request_id()}")
                    for step_s in (HOUR_S, -HOUR_S, 0.0):
                        clock.step_to(step_s)
                        assert abs(shown_s(watch) - step_s) < HOUR_S / 10
                        load.run(EACH_S)
                assert watch.saw(stream.read_until(b"0\r\n\r\n", 20)).endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
            assert set(load.statuses) == {200}
            state = sandbox.state()
            assert sum(state["tokens"].values()) == state["tokens"]["valid"]
            assert 3 <= state["fetches"] <= 2 + (time.monotonic() - began) / RENEWED_AFTER_LEAST_S
        finally:
            assert proxy.stop() == 0


def test_steps_of_an_hour_shut_no_key_out_but_one_that_expires(tmp_path: Path, sandbox: SandboxClient) -> None:
    clock = ShiftedClock(tmp_path)
    proxy = ProxyProcess.start(sandbox.config(client_keys=client_keys()), tmp_path, clock.environ)
    try:
        with always_true(proxy, sandbox, secrets=KEYS.values()) as watch:

            def statuses() -> dict[str, int]:
                return {label: watch.chat(key=key).status_code for label, key in KEYS.items()}

            assert statuses() == {"steady": 200, "slow": 200, "short": 200}
            for step_s, of_short in ((HOUR_S, 401), (-HOUR_S, 200), (0.0, 200)):
                clock.step_to(step_s)
                assert statuses() == {"steady": 200, "slow": 429, "short": of_short}
                assert int(watch.chat(key=KEYS["slow"]).headers["Retry-After"]) <= 61
    finally:
        assert proxy.stop() == 0
