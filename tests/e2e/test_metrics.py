"""The metrics of all workers together, through kills, reloads and full disks, as Prometheus would read them."""

import os
import signal
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.support.counting_process import Samples, samples_of
from tests.support.load import BODY, ask_at_once
from tests.support.proxy_process import ProxyProcess
from tests.support.raw_http import RawCaller
from tests.support.sandbox_client import SandboxClient
from tests.support.waiting import wait_for

CHAT = "/v1/chat/completions"
REQUESTS = "llm_proxy_requests_total /chat/completions 200 llm"
FETCHES = "llm_proxy_token_fetches_total ok corp"
IN_FLIGHT = "llm_proxy_in_flight"
MARK = "marked-name-5"


def page(proxy: ProxyProcess) -> str:
    return httpx.get(f"{proxy.url}/metrics", trust_env=False).raise_for_status().text


def scrape(proxy: ProxyProcess) -> Samples:
    return samples_of(text_string_to_metric_families(page(proxy)))


def workers(proxy: ProxyProcess) -> set[int]:
    children = Path(f"/proc/{proxy.process.pid}/task/{proxy.process.pid}/children").read_text()
    return {int(child) for child in children.split()}


def config(sandbox: SandboxClient, worker_class: str, **sections: Any) -> dict[str, Any]:
    return sandbox.config(server={"worker_class": worker_class, "workers": 3}, **sections)


def test_the_counts_of_all_workers_add_up_through_kills_and_reloads(
    tmp_path: Path, own_sandbox: SandboxClient, worker_class: str
) -> None:
    # Each worker fetches for itself, at its first request at the latest: so the fetches tell that all have worked.
    proxy = ProxyProcess.start(config(own_sandbox, worker_class, token_store={"type": "memory"}), tmp_path)
    asked = 0

    def check_after(fetches: int) -> None:
        def have_all_worked() -> bool:
            nonlocal asked
            asked += 20
            assert set(ask_at_once(proxy, 20)) == {200}
            return int(own_sandbox.state()["fetches"]) == fetches

        wait_for(have_all_worked, 20)
        wait_for(lambda: scrape(proxy).get(REQUESTS) == asked)
        wait_for(lambda: scrape(proxy)[FETCHES] == fetches)

    try:
        check_after(3)
        killed = workers(proxy).pop()
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda: len(workers(proxy)) == 3 and killed not in workers(proxy), 10)
        check_after(4)
        before = workers(proxy)
        proxy.signal(signal.SIGHUP)
        wait_for(lambda: len(workers(proxy)) == 3 and not workers(proxy) & before, 15)
        check_after(7)
    finally:
        assert proxy.stop() == 0
    assert not list((tmp_path / "llm-proxy").glob("metrics-*"))


def test_a_killed_worker_takes_its_requests_in_flight_with_it(
    tmp_path: Path, sandbox: SandboxClient, worker_class: str
) -> None:
    proxy = ProxyProcess.start(config(sandbox, worker_class), tmp_path)
    try:
        idle = 1  # the scrape itself; a request is counted out just after its last byte
        wait_for(lambda: scrape(proxy)[IN_FLIGHT] == idle)
        with RawCaller(proxy.port) as caller:
            caller.post(CHAT, {**BODY, "stream": True, "sandbox_frames": 100, "sandbox_interval_ms": 500})
            caller.read_until(b"\n\n\r\n")
            wait_for(lambda: scrape(proxy)[IN_FLIGHT] == idle + 1)
            for worker in workers(proxy):
                os.kill(worker, signal.SIGKILL)
            caller.read_to_end()
        wait_for(lambda: len(workers(proxy)) == 3, 10)
        wait_for(lambda: scrape(proxy)[IN_FLIGHT] == idle)
    finally:
        proxy.stop()


def test_a_request_is_counted_by_its_template_however_it_was_asked(tmp_path: Path, sandbox: SandboxClient) -> None:
    proxy = ProxyProcess.start(sandbox.config(), tmp_path)
    try:
        for prefix in ("", "/v1", "/v1/v1", "/agent/api/llm_proxy", "/agent/api/llm_proxy/v1"):
            assert httpx.post(f"{proxy.url}{prefix}/chat/completions", json=BODY, trust_env=False).status_code == 200
        assert httpx.get(f"{proxy.url}/v1/models/{MARK}", trust_env=False).status_code == 404
        assert httpx.get(f"{proxy.url}/{MARK}", trust_env=False).status_code == 404
        wait_for(lambda: scrape(proxy).get(REQUESTS) == 5)
        wait_for(lambda: scrape(proxy).get("llm_proxy_requests_total - 404 -") == 1)
        assert scrape(proxy)["llm_proxy_first_byte_seconds_count"] >= 5
        assert scrape(proxy)["llm_proxy_overhead_seconds_count"] >= 5
        assert MARK not in page(proxy)
    finally:
        proxy.stop()


def test_streams_are_counted_by_their_end_and_tokens_by_their_usage(tmp_path: Path, own_sandbox: SandboxClient) -> None:
    proxy = ProxyProcess.start(own_sandbox.config(), tmp_path)
    usage = b'"usage": {"prompt_tokens": 9, "completion_tokens": 12}'
    frame = b'data: {"choices": [{"delta": {"content": "a"}, "finish_reason": "stop"}]}\n\n'
    body = {**BODY, "stream": True}
    try:
        own_sandbox.frames(frame, b'data: {"choices": [], ' + usage + b"}\n\n", b"data: [DONE]\n\n")
        assert httpx.post(proxy.url + CHAT, json=body, trust_env=False).text.endswith("data: [DONE]\n\n")
        wait_for(lambda: scrape(proxy)["llm_proxy_streams_total done"] == 1)
        own_sandbox.faults(upstream=[{"kind": "stream_reset"}])
        assert "[DONE]" not in httpx.post(proxy.url + CHAT, json=body, trust_env=False).text
        wait_for(lambda: scrape(proxy)["llm_proxy_streams_total cut"] == 1)
        answer = b'{"choices": [], ' + usage + b"}"
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(answer)
        own_sandbox.raw(head + answer)
        assert httpx.post(proxy.url + CHAT, json=BODY, trust_env=False).content == answer
        wait_for(lambda: scrape(proxy)["llm_proxy_tokens_total prompt llm"] == 18)
        assert scrape(proxy)["llm_proxy_tokens_total completion llm"] == 24
    finally:
        proxy.stop()


def test_a_replay_is_counted(tmp_path: Path, own_sandbox: SandboxClient) -> None:
    proxy = ProxyProcess.start(own_sandbox.config(), tmp_path)
    try:
        assert httpx.post(proxy.url + CHAT, json=BODY, trust_env=False).status_code == 200
        own_sandbox.revoke()
        assert httpx.post(proxy.url + CHAT, json=BODY, trust_env=False).status_code == 200
        samples = scrape(proxy)
        assert (samples["llm_proxy_token_replays_total"], samples[FETCHES]) == (1, 2)
        assert samples["llm_proxy_token_fetch_seconds_count"] == 2
    finally:
        proxy.stop()


def test_an_issuer_that_refuses_us_is_counted_and_shown_as_no_token(
    tmp_path: Path, own_sandbox: SandboxClient, worker_class: str
) -> None:
    own_sandbox.faults(issuer=[{"kind": "status", "status": 401}])
    proxy = ProxyProcess.start(config(own_sandbox, worker_class), tmp_path)
    try:
        assert httpx.post(proxy.url + CHAT, json=BODY, trust_env=False).status_code == 503
        wait_for(lambda: scrape(proxy)["llm_proxy_token_fetches_total refused corp"] == 1)
        samples = scrape(proxy)
        assert (samples[FETCHES], samples["llm_proxy_token_state corp"]) == (0, 0)
        assert "llm_proxy_token_seconds_to_expiry corp" not in samples
    finally:
        proxy.stop()


def test_every_worker_tells_how_the_shared_token_stands_even_before_its_first_request(
    tmp_path: Path, sandbox: SandboxClient, worker_class: str
) -> None:
    proxy = ProxyProcess.start(config(sandbox, worker_class), tmp_path)
    try:
        assert httpx.post(proxy.url + CHAT, json=BODY, trust_env=False).status_code == 200
        for samples in (scrape(proxy) for _ in range(20)):
            assert samples["llm_proxy_token_state corp"] == 3
            assert 290 < samples["llm_proxy_token_seconds_to_expiry corp"] <= 300
    finally:
        proxy.stop()


def test_without_a_folder_requests_are_served_and_each_worker_counts_for_itself(
    tmp_path: Path, sandbox: SandboxClient, worker_class: str
) -> None:
    (tmp_path / "llm-proxy").write_text("in the way of the folder")
    settings = sandbox.config(server={"worker_class": worker_class}, token_store={"type": "memory"})
    proxy = ProxyProcess.start(settings, tmp_path)
    try:
        assert httpx.post(proxy.url + CHAT, json=BODY, trust_env=False).status_code == 200
        wait_for(lambda: scrape(proxy)[FETCHES] == 1)
        assert "each worker counts for itself" in proxy.log()
    finally:
        assert proxy.stop() == 0


def test_the_metrics_are_as_prometheus_reads_them(proxy: ProxyProcess) -> None:
    answer = httpx.get(f"{proxy.url}/metrics", trust_env=False)
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.text.startswith("# HELP llm_proxy_")
