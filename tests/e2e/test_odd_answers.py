"""Answers that are not wrong but odd, and what they must not do to the worker or to the next request."""

import base64
import json
import os
from array import array
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.proxy_process import ProxyFarm, ProxyProcess
from tests.support.raw_http import RawCaller
from tests.support.sandbox_client import SandboxClient
from tests.support.waiting import wait_for

CHAT = "/v1/chat/completions"
BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}


def post(proxy: ProxyProcess, path: str = CHAT, body: Any = BODY, **request: Any) -> httpx.Response:
    return httpx.post(proxy.url + path, json=body, trust_env=False, timeout=30, **request)


def descriptors(proxy: ProxyProcess) -> int:
    """Open descriptors of the proxy's one worker."""
    children = Path(f"/proc/{proxy.process.pid}/task/{proxy.process.pid}/children").read_text().split()
    return len(os.listdir(f"/proc/{children[0]}/fd"))


def raw_answer(*fields: str, body: bytes = b'{"choices": []}') -> bytes:
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", "Connection: close", *fields, "", ""]
    return "\r\n".join(lines).encode() + body


def test_a_field_in_utf_8_crosses_as_its_bytes_and_leaves_nothing_behind(
    proxy: ProxyProcess, sandbox: SandboxClient
) -> None:
    for _ in range(6):
        sandbox.raw(raw_answer("Content-Type: application/json", "x-litellm-model: 日本"))
        answer = post(proxy)
        assert answer.status_code == 200
        assert dict(answer.headers.raw)[b"x-litellm-model"] == "日本".encode()
    # A request is counted out just after its last byte.
    wait_for(lambda: httpx.get(proxy.url + "/status", trust_env=False).json()["requests_running"] == 0)


def test_json_without_a_content_type_is_called_json(proxy: ProxyProcess, sandbox: SandboxClient) -> None:
    sandbox.raw(raw_answer())
    assert post(proxy).headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("path", ["/v1/images/generations", "/v1/moderations", "/v1/embeddings", "/v1/rerank"])
def test_json_that_is_no_completion_passes_where_none_is_to_be_had_though_a_stream_was_asked_for(
    proxy: ProxyProcess, sandbox: SandboxClient, path: str
) -> None:
    sandbox.faults(upstream=[{"kind": "reply", "body": '{"data": []}'}])
    answer = post(proxy, path, {**BODY, "stream": True})
    assert (answer.status_code, answer.text) == (200, '{"data": []}')


def test_a_content_type_that_is_no_ascii_crosses_as_its_bytes(proxy: ProxyProcess, sandbox: SandboxClient) -> None:
    sandbox.raw(raw_answer("Content-Type: application/json; x=日"))
    answer = post(proxy)
    assert (answer.status_code, answer.content) == (200, b'{"choices": []}')


def test_an_odd_charset_of_an_error_crosses(proxy: ProxyProcess, sandbox: SandboxClient) -> None:
    headers = {"Content-Type": "application/json; charset=hex"}
    sandbox.faults(upstream=[{"kind": "status", "status": 400, "body": '{"error": {}}', "headers": headers}])
    answer = post(proxy)
    assert (answer.status_code, answer.content) == (400, b'{"error": {}}')


def test_a_callers_field_that_is_not_ascii_stays_out(proxy: ProxyProcess, sandbox: SandboxClient) -> None:
    with RawCaller(proxy.port) as caller:
        caller.post(CHAT, BODY, "OpenAI-Beta: \xe9", "Connection: close")
        assert caller.read_to_end().startswith(b"HTTP/1.1 200 ")
    assert "openai-beta" not in [name.lower() for name, _ in sandbox.last()["headers"]]


def test_base64_is_honoured_in_an_answer_of_more_than_8_mib(proxy: ProxyProcess, sandbox: SandboxClient) -> None:
    floats = [0.123456789] * 3072
    data = [{"object": "embedding", "index": index, "embedding": floats} for index in range(300)]
    given = json.dumps({"object": "list", "data": data})
    assert len(given) > 8 * 1024 * 1024
    sandbox.faults(upstream=[{"kind": "reply", "body": given}])
    answer = post(proxy, "/v1/embeddings", {"model": "e", "input": ["x"], "encoding_format": "base64"}).json()
    assert len(answer["data"]) == 300
    assert array("f", base64.b64decode(answer["data"][299]["embedding"])) == array("f", floats)


@pytest.mark.parametrize(
    "last",
    [b'{"type":"image_generation.completed","b64_json":"x"}', b'{"type":"speech.audio.done","usage":{}}'],
    ids=["images", "speech"],
)
def test_streams_of_other_kinds_end_well(proxy: ProxyProcess, sandbox: SandboxClient, last: bytes) -> None:
    sandbox.frames(b'data: {"type":"x.delta"}\n\n', b"event: x\ndata: " + last + b"\n\n")
    frames = post(proxy, body={**BODY, "stream": True}).content.split(b"\n\n")
    assert frames[1:] == [b"data: " + last, b"data: [DONE]", b""]


def test_a_cut_answer_of_more_than_8_mib_breaks_the_connection(proxy: ProxyProcess, sandbox: SandboxClient) -> None:
    sandbox.faults(
        upstream=[
            {"kind": "reply", "body": '{"choices": ["' + "x" * 1023 + '"]}', "repeat": 10000},
            {"kind": "short", "missing_bytes": 1000},
        ]
    )
    with pytest.raises(httpx.RemoteProtocolError):
        post(proxy)
    assert "Traceback" not in proxy.log()


def test_models_tell_an_outage_from_an_upstream_without_a_list(
    farm: ProxyFarm, own_sandbox: SandboxClient, worker_class: str
) -> None:
    proxy = farm.proxy(own_sandbox.config(server={"worker_class": worker_class}))
    own_sandbox.faults(upstream=[{"kind": "status", "status": 404, "path": "/models"}])
    assert httpx.get(proxy.url + "/v1/models", trust_env=False).json() == {"object": "list", "data": []}
    other = farm.proxy(own_sandbox.config(server={"worker_class": worker_class, "drain_s": 6}))
    own_sandbox.faults(upstream=[{"kind": "close"}])
    assert httpx.get(other.url + "/v1/models", trust_env=False).status_code == 502


def test_split_embeddings_leave_no_descriptor_behind(
    farm: ProxyFarm, own_sandbox: SandboxClient, worker_class: str
) -> None:
    proxy = farm.proxy(
        own_sandbox.config(server={"worker_class": worker_class}, upstream={"embeddings": {"max_batch": 2}})
    )
    body = {"model": "e", "input": ["a", "b", "c"]}
    for _ in range(5):
        assert post(proxy, "/v1/embeddings", body).status_code == 200
    before = descriptors(proxy)
    for _ in range(40):
        assert post(proxy, "/v1/embeddings", body).status_code == 200
    assert descriptors(proxy) <= before + 5


def test_refused_tokens_do_not_use_up_the_connections_of_split_embeddings(
    farm: ProxyFarm, own_sandbox: SandboxClient, worker_class: str
) -> None:
    upstream = {"embeddings": {"max_batch": 1}, "timeouts": {"connect_s": 1, "first_byte_s": 3}}
    proxy = farm.proxy(own_sandbox.config(server={"worker_class": worker_class}, upstream=upstream))
    body = {"model": "e", "input": ["a", "b", "c", "d", "e"]}
    own_sandbox.faults(upstream=[{"kind": "refuse_token"}])
    assert {post(proxy, "/v1/embeddings", body).status_code for _ in range(30)} == {502}
    own_sandbox.faults(upstream=[])
    assert post(proxy, "/v1/embeddings", body).status_code == 200


def test_split_embeddings_end_with_the_total_time(
    farm: ProxyFarm, own_sandbox: SandboxClient, worker_class: str
) -> None:
    upstream = {"embeddings": {"max_batch": 1}, "timeouts": {"first_byte_s": 5, "idle_s": 5, "total_s": 1}}
    proxy = farm.proxy(own_sandbox.config(server={"worker_class": worker_class}, upstream=upstream))
    own_sandbox.faults(upstream=[{"kind": "drip", "pause_ms": 200}])
    assert post(proxy, "/v1/embeddings", {"model": "e", "input": ["a", "b"]}).status_code == 504
    own_sandbox.wait_until(lambda state: state["open"] == 0)


def test_callers_that_leave_in_the_middle_of_anything_leave_nothing_behind(
    farm: ProxyFarm, own_sandbox: SandboxClient, worker_class: str
) -> None:
    proxy = farm.proxy(own_sandbox.config(server={"worker_class": worker_class}))
    assert post(proxy).status_code == 200
    before = descriptors(proxy)
    own_sandbox.faults(upstream=[{"kind": "stall", "frames": 1}])
    for number in range(60):
        with RawCaller(proxy.port) as caller:
            caller.post(CHAT, {**BODY, "stream": number % 2 == 0})
            if number % 2 == 0:
                caller.read_until(b"\n\n")
            if number % 3 == 0:
                caller.reset()
    own_sandbox.wait_until(lambda state: state["open"] == 0)
    own_sandbox.faults(upstream=[])
    assert post(proxy).status_code == 200
    # A request is counted out just after its last byte.
    wait_for(lambda: httpx.get(proxy.url + "/status", trust_env=False).json()["requests_running"] == 0)
    assert descriptors(proxy) <= before + 5
