"""What crosses, byte for byte, and what never does."""

import json
from typing import Any

import httpx
import pytest

from tests.support.proxy_process import ProxyFarm, ProxyProcess
from tests.support.sandbox_client import SandboxClient

CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "Hello"}]
ODD_BODY = (
    '{ "model" :"m",\n\t"messages":[{"role":"user","content":"Zü\\u00e4rich \\ud83d\\ude00 日本 \\/"}],'
    '"temperature":1.00, "big":123456789012345678901234567890,"unknown":{"a":[null,true,{}]} }  \n'
).encode()


def test_a_body_arrives_unchanged_down_to_its_spaces(proxy: ProxyProcess, sandbox: SandboxClient) -> None:
    answer = httpx.post(proxy.url + CHAT, content=ODD_BODY, trust_env=False)
    assert answer.status_code == 200
    assert sandbox.last()["body"] == ODD_BODY


def test_an_answer_arrives_unchanged(proxy: ProxyProcess, sandbox: SandboxClient) -> None:
    given = ' {"choices" : [ ],\n "x":"ü\\u00fc", "n": 1.50}\n'
    sandbox.faults(upstream=[{"kind": "reply", "body": given}])
    assert httpx.post(proxy.url + CHAT, content=ODD_BODY, trust_env=False).content == given.encode()


def test_a_large_answer_arrives_whole(proxy: ProxyProcess, sandbox: SandboxClient) -> None:
    sandbox.faults(upstream=[{"kind": "reply", "body": '{"choices": ["' + "x" * 1023 + '"]}', "repeat": 20000}])
    answer = httpx.post(proxy.url + CHAT, content=ODD_BODY, trust_env=False, timeout=30)
    assert len(answer.content) == 20000 * len('{"choices": ["' + "x" * 1023 + '"]}')


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "application/x-www-form-urlencoded", "text/plain", ""],
    ids=["JSON", "form, as curl -d sends", "text", "none"],
)
def test_a_json_body_is_read_whatever_its_content_type_says(
    proxy: ProxyProcess, sandbox: SandboxClient, content_type: str
) -> None:
    fields = {"Content-Type": content_type} if content_type else {}
    assert httpx.post(proxy.url + CHAT, content=ODD_BODY, headers=fields, trust_env=False).status_code == 200
    sent = {name.lower(): value for name, value in sandbox.last()["headers"]}
    assert sent["content-type"] == "application/json"


def test_the_callers_credentials_and_connection_fields_never_arrive(
    proxy: ProxyProcess, sandbox: SandboxClient
) -> None:
    fields = {
        "Authorization": "Bearer caller-secret",
        "Cookie": "session=caller-secret",
        "Proxy-Authorization": "Basic caller-secret",
        "X-Forwarded-For": "10.0.0.1",
        "Forwarded": "for=10.0.0.1",
        "X-Api-Key": "caller-secret",
        "Keep-Alive": "timeout=5",
        "OpenAI-Beta": "assistants=v2",
        "Idempotency-Key": "abc",
    }
    httpx.post(proxy.url + CHAT, content=ODD_BODY, headers=fields, trust_env=False)
    entry = sandbox.last()
    assert entry["token"] == "valid"
    assert "caller-secret" not in json.dumps(entry["headers"])
    names = sorted(name.lower() for name, _ in entry["headers"])
    assert names == [
        "accept",
        "accept-encoding",
        "authorization",
        "content-length",
        "content-type",
        "host",
        "idempotency-key",
        "openai-beta",
        "user-agent",
    ]


def test_api_key_as_the_credential_never_arrives_either(proxy: ProxyProcess, sandbox: SandboxClient) -> None:
    httpx.post(proxy.url + CHAT, content=ODD_BODY, headers={"api-key": "caller-secret"}, trust_env=False)
    assert "caller-secret" not in json.dumps(sandbox.last()["headers"])


def test_answer_fields_cross_by_the_list_only(proxy: ProxyProcess, sandbox: SandboxClient) -> None:
    crossing = {"x-ratelimit-remaining-requests": "9", "openai-processing-ms": "5", "x-litellm-model-id": "a"}
    staying = {"Set-Cookie": "a=b", "WWW-Authenticate": "Bearer", "X-Internal": "1", "Server": "secret-box"}
    headers = {**crossing, **staying, "x-request-id": "theirs"}
    sandbox.faults(upstream=[{"kind": "reply", "body": '{"choices": []}', "headers": headers}])
    answer = httpx.post(proxy.url + CHAT, content=ODD_BODY, headers={"X-Request-Id": "mine-1"}, trust_env=False)
    assert {name: answer.headers.get(name) for name in crossing} == crossing
    assert answer.headers["x-request-id"] == "mine-1"
    assert answer.headers["x-upstream-request-id"].startswith("theirs")
    assert "secret-box" not in answer.headers["server"]
    assert not {"set-cookie", "www-authenticate", "x-internal"} & set(answer.headers)


@pytest.mark.parametrize("given", ["", "two words", "x" * 129, "a\tb"], ids=["empty", "blank", "long", "tab"])
def test_a_request_id_that_is_not_sane_is_replaced_by_ours(proxy: ProxyProcess, given: str) -> None:
    answer = httpx.get(proxy.url + "/healthz", headers={"X-Request-Id": given}, trust_env=False)
    assert len(answer.headers["X-Request-Id"]) == 32
    assert answer.headers["X-Request-Id"] != given


def test_the_config_changes_what_it_names_and_nothing_else(
    farm: ProxyFarm, sandbox: SandboxClient, worker_class: str
) -> None:
    upstream = {
        "models": {"gpt-4o": "deploy-1", "sandbox-*": "*"},
        "strip_fields": ["drop_params"],
        "set_fields": {"user": "proxy", "temperature": 0},
        "headers": {"X-App-Id": "app-7"},
    }
    proxy = farm.proxy(sandbox.config(server={"worker_class": worker_class}, upstream=upstream))
    body: dict[str, Any] = {"model": "gpt-4o", "messages": MESSAGES, "drop_params": True, "temperature": 1}
    assert httpx.post(proxy.url + CHAT, json=body, trust_env=False).status_code == 200
    entry = sandbox.last()
    assert json.loads(entry["body"]) == {"model": "deploy-1", "messages": MESSAGES, "temperature": 1, "user": "proxy"}
    assert ["X-App-Id", "app-7"] in entry["headers"]
    listed = httpx.get(proxy.url + "/v1/models", trust_env=False).json()["data"]
    assert [model["id"] for model in listed] == ["sandbox-chat", "sandbox-embedding", "sandbox-rerank", "gpt-4o"]


def test_a_large_embedding_input_is_split_and_joined_in_order(
    farm: ProxyFarm, sandbox: SandboxClient, worker_class: str
) -> None:
    whole = farm.proxy(sandbox.config(server={"worker_class": worker_class}))
    split = farm.proxy(
        sandbox.config(server={"worker_class": worker_class}, upstream={"embeddings": {"max_batch": 10}})
    )
    body = {"model": "e", "input": [f"text {number}" for number in range(35)]}
    expected = httpx.post(whole.url + "/v1/embeddings", json=body, trust_env=False).json()
    sandbox.reset()
    answer = httpx.post(split.url + "/v1/embeddings", json=body, trust_env=False, timeout=20)
    assert answer.json() == expected
    assert sorted(len(json.loads(entry["body"])["input"]) for entry in sandbox.log()) == [5, 10, 10, 10]
    assert all(entry["token"] == "valid" for entry in sandbox.log())


def test_split_embeddings_survive_a_revoked_token(
    farm: ProxyFarm, own_sandbox: SandboxClient, worker_class: str
) -> None:
    proxy = farm.proxy(
        own_sandbox.config(server={"worker_class": worker_class}, upstream={"embeddings": {"max_batch": 2}})
    )
    body = {"model": "e", "input": ["a", "b", "c"]}
    assert httpx.post(proxy.url + "/v1/embeddings", json=body, trust_env=False).status_code == 200
    own_sandbox.revoke()
    answer = httpx.post(proxy.url + "/v1/embeddings", json=body, trust_env=False, timeout=20)
    assert [item["index"] for item in answer.json()["data"]] == [0, 1, 2]


def test_an_error_of_one_part_is_the_answer(farm: ProxyFarm, sandbox: SandboxClient, worker_class: str) -> None:
    proxy = farm.proxy(sandbox.config(server={"worker_class": worker_class}, upstream={"embeddings": {"max_batch": 2}}))
    fault = {"kind": "status", "status": 422, "body": '{"error": {"message": "too long"}}', "times": 1}
    sandbox.faults(upstream=[fault])
    answer = httpx.post(proxy.url + "/v1/embeddings", json={"model": "e", "input": ["a", "b", "c"]}, trust_env=False)
    assert answer.status_code == 422
    assert answer.json()["error"]["message"] == "too long"
