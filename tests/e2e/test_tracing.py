"""The span of each request, as a collector of the test's own receives it from real workers."""

import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from tests.support.otlp_collector import OtlpCollector, attributes_of
from tests.support.proxy_process import ROOT, ProxyFarm, ProxyProcess, free_port
from tests.support.sandbox_client import SandboxClient
from tests.support.scripted_upstream import ScriptedUpstream
from tests.support.secret_traces import found_in

CHAT = "/v1/chat/completions"
BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
KEY = "key-mark-1234"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
Start = Callable[..., ProxyProcess]

# Prints a token of the sandbox's issuer, whose URL is its argument.
PROGRAM = """
import json, sys, urllib.request

opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
body = json.dumps({"appId": "sandbox-app", "appSecret": "sandbox-secret"}).encode()
print(json.load(opener.open(sys.argv[1], body, timeout=5))["access_token"])
"""


@pytest.fixture(scope="module")
def collector() -> Iterator[OtlpCollector]:
    with OtlpCollector() as collector:
        yield collector


@pytest.fixture
def settings(sandbox: SandboxClient, collector: OtlpCollector, worker_class: str) -> dict[str, Any]:
    return sandbox.config(server={"worker_class": worker_class}, tracing={"otlp_endpoint": collector.url})


@pytest.fixture
def traced(farm: ProxyFarm, settings: dict[str, Any]) -> ProxyProcess:
    """A proxy that sends to the collector."""
    return farm.proxy(settings)


@pytest.fixture
def locked(farm: ProxyFarm, settings: dict[str, Any]) -> ProxyProcess:
    """The same, which wants KEY."""
    return farm.proxy({**settings, "client_keys": [{"label": "a", "sha256": sha256(KEY.encode()).hexdigest()}]})


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a proxy that is stopped after the test, whose exit status must be 0."""
    started: list[ProxyProcess] = []

    def start(config: dict[str, Any], environ: dict[str, str] | None = None) -> ProxyProcess:
        started.append(ProxyProcess.start(config, tmp_path, environ))
        return started[-1]

    yield start
    assert [proxy.stop() for proxy in started] == [0] * len(started)


def ask(proxy: ProxyProcess, *, path: str = CHAT, headers: dict[str, str] | None = None, **members: Any) -> str:
    """The id of a request that was answered to its end."""
    request_id = uuid.uuid4().hex
    fields = {"X-Request-Id": request_id, **(headers or {})}
    httpx.post(proxy.url + path, json={**BODY, **members}, headers=fields, trust_env=False, timeout=30)
    return request_id


def test_a_chat_is_a_span_with_the_facts_of_its_line(traced: ProxyProcess, collector: OtlpCollector) -> None:
    request_id = ask(traced)
    span = collector.span_of(request_id)
    attributes = attributes_of(span)
    assert (span.name, span.kind) == ("chat", SpanMessage.SPAN_KIND_SERVER)
    assert span.status.code == Status.STATUS_CODE_UNSET
    assert 0 < span.end_time_unix_nano - span.start_time_unix_nano < 30e9
    for counted in ("http.response.body.size", "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"):
        assert attributes.pop(counted) > 0
    assert attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "m",
        "openai.api.type": "chat_completions",
        "http.request.method": "POST",
        "http.route": CHAT,
        "http.response.status_code": 200,
        "url.scheme": "http",
        "server.address": "127.0.0.1",
        "server.port": traced.port,
        "llm_proxy.request_id": request_id,
        "llm_proxy.caller": "anyone",
        "llm_proxy.upstream": "llm",
        "llm_proxy.outcome": "done",
    }
    assert collector.resource_of(request_id)["service.name"] == "llm-proxy"


def test_a_stream_tells_its_first_chunk_and_its_usage(traced: ProxyProcess, collector: OtlpCollector) -> None:
    request_id = ask(traced, stream=True, stream_options={"include_usage": True})
    span = collector.span_of(request_id)
    attributes = attributes_of(span)
    duration_s = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9
    assert attributes["gen_ai.request.stream"] is True
    assert 0 < attributes["gen_ai.response.time_to_first_chunk"] <= duration_s
    assert attributes["gen_ai.usage.output_tokens"] > 0
    assert attributes["llm_proxy.frames"] > 2


@pytest.mark.parametrize(
    ("fault", "members", "error_type", "status", "outcome"),
    [
        pytest.param({"kind": "status", "status": 500}, {}, "500", 500, "error", id="an upstream's 500"),
        pytest.param({"kind": "stream_reset"}, {"stream": True}, "cut", 200, "cut", id="a cut stream"),
    ],
)
def test_what_fails_is_an_error_of_its_kind(
    traced: ProxyProcess,
    collector: OtlpCollector,
    sandbox: SandboxClient,
    fault: dict[str, Any],
    members: dict[str, Any],
    error_type: str,
    status: int,
    outcome: str,
) -> None:
    sandbox.faults(upstream=[fault])
    span = collector.span_of(ask(traced, **members))
    attributes = attributes_of(span)
    assert span.status.code == Status.STATUS_CODE_ERROR
    assert attributes["error.type"] == error_type
    assert (attributes["http.response.status_code"], attributes["llm_proxy.outcome"]) == (status, outcome)


def test_a_caller_without_a_key_leaves_no_span(locked: ProxyProcess, collector: OtlpCollector) -> None:
    refused = ask(locked, headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
    span = collector.span_of(ask(locked, headers={"Authorization": f"Bearer {KEY}"}))  # the worker sends in turn
    assert attributes_of(span)["llm_proxy.caller"] == "a"
    assert refused not in {attributes_of(span)["llm_proxy.request_id"] for span in collector.spans()}


def test_the_callers_trace_goes_on_and_the_upstream_hangs_below_our_span(
    traced: ProxyProcess, collector: OtlpCollector, sandbox: SandboxClient
) -> None:
    context = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=a,other=b"}
    span = collector.span_of(ask(traced, headers=context))
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    sent = dict(sandbox.last()["headers"])
    assert sent["traceparent"] == f"00-{TRACE}-{span.span_id.hex()}-01"
    assert sent["tracestate"] == context["tracestate"]


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="none"),
        pytest.param({"traceparent": f"00-{TRACE}-nonsense-01", "tracestate": "a=b"}, id="bad"),
        pytest.param({"traceparent": f"00-{'0' * 32}-{PARENT}-01", "tracestate": "a=b"}, id="of zeros"),
    ],
)
def test_without_a_good_context_a_new_trace_begins(
    traced: ProxyProcess, collector: OtlpCollector, sandbox: SandboxClient, headers: dict[str, str]
) -> None:
    span = collector.span_of(ask(traced, headers=headers))
    assert span.parent_span_id == b""
    assert span.trace_id.hex() != TRACE
    sent = dict(sandbox.last()["headers"])
    assert sent["traceparent"].startswith(f"00-{span.trace_id.hex()}-{span.span_id.hex()}-")
    assert "tracestate" not in sent


def test_a_trace_that_the_caller_does_not_record_is_handed_on_and_not_sent(
    traced: ProxyProcess, collector: OtlpCollector, sandbox: SandboxClient
) -> None:
    unrecorded = ask(traced, headers={"traceparent": f"00-{TRACE}-{PARENT}-00"})
    version, trace, parent, flags = dict(sandbox.last()["headers"])["traceparent"].split("-")
    assert (version, trace, flags) == ("00", TRACE, "00")
    assert parent != PARENT
    collector.span_of(ask(traced))  # the worker sends in turn
    assert unrecorded not in {attributes_of(span)["llm_proxy.request_id"] for span in collector.spans()}


def test_no_prompt_answer_key_or_token_leaves(
    locked: ProxyProcess, collector: OtlpCollector, sandbox: SandboxClient
) -> None:
    prompt, answer, state = "prompt-mark-1234", b"answer-mark-1234", "x=state-mark-1234"
    headers = {"Authorization": f"Bearer {KEY}", "traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": state}
    messages = [{"role": "user", "content": prompt}]
    collector.span_of(ask(locked, headers=headers, messages=messages))
    token = dict(sandbox.last()["headers"])["Authorization"].removeprefix("Bearer ")
    sandbox.raw(b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\n\r\n" + b'{"error": "' + answer + b'"}')
    collector.span_of(ask(locked, headers=headers, messages=messages))
    assert found_in(collector.received(), [KEY, prompt, answer.decode(), token, state]) == []


@pytest.mark.parametrize("silent", [True, False], ids=["silent", "away"])
def test_a_collector_that_does_not_answer_holds_up_no_request_and_no_end(
    tmp_path: Path, sandbox: SandboxClient, worker_class: str, silent: bool
) -> None:
    with ScriptedUpstream() as hanging:
        endpoint = hanging.url if silent else f"http://127.0.0.1:{free_port()}"
        config = sandbox.config(server={"worker_class": worker_class}, tracing={"otlp_endpoint": endpoint})
        proxy = ProxyProcess.start(config, tmp_path)
        try:
            for _ in range(20):
                assert httpx.post(proxy.url + CHAT, json=BODY, trust_env=False).status_code == 200
            if silent:
                hanging.wait_for_requests(1)
            assert httpx.post(proxy.url + CHAT, json=BODY, trust_env=False).status_code == 200
        finally:
            assert proxy.stop() == 0


def test_a_collector_that_refuses_is_told_once(tmp_path: Path, sandbox: SandboxClient) -> None:
    with ScriptedUpstream() as refusing:
        for _ in range(100):
            refusing.answer(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        proxy = ProxyProcess.start(sandbox.config(tracing={"otlp_endpoint": refusing.url}), tmp_path)
        try:
            for batch in range(3):
                ask(proxy)
                refusing.wait_for_requests(batch + 1)
        finally:
            assert proxy.stop() == 0
    told = [line for line in proxy.log().splitlines() if " ERROR " in line]
    assert ["404" in told[0], *(line.partition("tracing: ")[2] for line in told[1:])] == [
        True,
        "spans are lost: the collector does not take them",
        "the worker ends, 3 spans were lost",
    ]


def test_the_last_spans_of_a_worker_that_ends_are_sent(
    start: Start, collector: OtlpCollector, settings: dict[str, Any]
) -> None:
    proxy = start(settings)
    request_id = ask(proxy)
    assert proxy.stop() == 0
    assert request_id in {attributes_of(span)["llm_proxy.request_id"] for span in collector.spans()}


def test_programs_for_tokens_run_beside_it(
    start: Start, collector: OtlpCollector, own_sandbox: SandboxClient, worker_class: str
) -> None:
    # Under gevent each of them is a fork of the worker, with its threads.
    argv = [sys.executable, "-c", PROGRAM, f"{own_sandbox.url}/token"]
    source = {"type": "command", "argv": argv, "default_lifetime_s": 300}
    settings = own_sandbox.config(
        server={"worker_class": worker_class},
        tracing={"otlp_endpoint": collector.url},
        token_sources={"corp": source},
        token_store={"type": "memory"},
    )
    proxy = start(settings)
    for _ in range(3):
        collector.span_of(ask(proxy))
        own_sandbox.revoke()
    assert "Traceback" not in proxy.log()


@pytest.mark.parametrize("worker_class", ["gevent"])
def test_the_sdks_own_variables_count_but_not_for_where_it_goes(
    start: Start, collector: OtlpCollector, settings: dict[str, Any]
) -> None:
    elsewhere = f"http://127.0.0.1:{free_port()}"
    environ = {
        "OTEL_SERVICE_NAME": "gateway",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
        "OTEL_EXPORTER_OTLP_ENDPOINT": elsewhere,
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": elsewhere,
        "OTEL_EXPORTER_OTLP_HEADERS": "x-collector-key=abc",
        "http_proxy": elsewhere,
        "HTTP_PROXY": elsewhere,
    }
    request_id = ask(start(settings, environ))
    collector.span_of(request_id)
    resource = collector.resource_of(request_id)
    assert (resource["service.name"], resource["deployment.environment.name"]) == ("gateway", "test")
    assert b"\r\nx-collector-key: abc\r\n" in collector.received()


def test_nothing_of_it_is_imported_where_it_is_off() -> None:
    program = (
        "import sys; from config import Settings; from proxy import create_app; "
        "create_app(Settings.model_validate({'upstreams': [{'name': 'a', 'base_url': 'http://127.0.0.1:9/v1'}]})); "
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=True
    )
    assert ran.stdout == "[]\n"
