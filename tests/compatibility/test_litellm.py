"""LiteLLM on both sides: its SDK in front of the proxy, and its proxy server as our upstream.

Its server asks this same proxy in turn, so that one request passes caller, proxy, LiteLLM, proxy and sandbox.
"""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
import yaml

from tests.support.compatibility import Client
from tests.support.foreign_client import Results, Server, run_client, version_of
from tests.support.proxy_process import ProxyFarm, ProxyProcess, free_port
from tests.support.sandbox_client import SandboxClient

NAME = "litellm"
BEHIND = "LiteLLM proxy, as upstream"
CLIENTS = [
    Client("LiteLLM SDK", version_of(NAME, "litellm")),
    Client(
        BEHIND, version_of(NAME, "litellm"), {"rerank": "Its OpenAI provider has no rerank; others of its own have."}
    ),
]
MASTER_KEY = "sk-of-litellm"
CHAT, EMBEDDING = "chat-of-litellm", "embedding-of-litellm"
LOCAL = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}  # nothing is fetched from the internet
HELLO: Any = [{"role": "user", "content": "Hello wörld"}]
TRIP = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
TOOLS: Any = [{"type": "function", "function": {"name": "plan", "parameters": TRIP}}]
PICTURE = {"url": "data:image/png;base64,iVBORw0KGgo="}


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def server(
    port: int, farm: ProxyFarm, _sandbox_of_session: SandboxClient, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """LiteLLM's server, which takes ten seconds to start and is not waited for here."""
    folder = tmp_path_factory.mktemp(NAME)
    api = farm.proxy(_proxy_config(_sandbox_of_session, port)).api
    (folder / "config.yaml").write_text(yaml.safe_dump(_server_config(api)))
    arguments = ["-m", "litellm.proxy.proxy_cli", "--config", "config.yaml", "--host", "127.0.0.1", "--port", str(port)]
    with Server(NAME, arguments, folder, LOCAL) as server:
        yield server


def _proxy_config(sandbox: SandboxClient, port: int) -> dict[str, Any]:
    """LiteLLM is asked for two models, the sandbox for all others."""
    config = sandbox.config()
    config["token_sources"]["litellm"] = {"type": "static", "token": MASTER_KEY}
    models = {CHAT: "sandbox-chat", EMBEDDING: "sandbox-embedding"}
    upstream = {"name": "litellm", "base_url": f"http://127.0.0.1:{port}/v1", "token_source": "litellm"}
    config["upstreams"].insert(0, {**upstream, "models": models})
    return config


def _server_config(api: str) -> dict[str, Any]:
    model = {"model": "openai/*", "api_base": api, "api_key": "key-of-litellm"}
    return {
        "model_list": [{"model_name": "*", "litellm_params": model}],
        "litellm_settings": {"num_retries": 0, "telemetry": False},
        "general_settings": {"master_key": MASTER_KEY},
    }


@pytest.fixture(scope="module")
def results(
    server: Server, farm: ProxyFarm, _sandbox_of_session: SandboxClient, tmp_path_factory: pytest.TempPathFactory
) -> Results:
    """What its SDK does; the server starts meanwhile."""
    return run_client(NAME, farm, _sandbox_of_session, tmp_path_factory.mktemp("sdk"), LOCAL)


@pytest.fixture(scope="module")
def proxy(server: Server, port: int, farm: ProxyFarm, _sandbox_of_session: SandboxClient) -> ProxyProcess:
    server.wait_until_answers(f"http://127.0.0.1:{port}/health/liveliness")
    return farm.proxy(_proxy_config(_sandbox_of_session, port))


@pytest.mark.parametrize("feature", CLIENTS[0].cells())
def test_feature_of_the_sdk_works_through_the_proxy(results: Results, feature: str) -> None:
    assert results[feature]["passed"], results[feature]["why"]


@pytest.fixture
def client(proxy: ProxyProcess, sandbox: SandboxClient) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=proxy.api, api_key="key-of-the-caller", max_retries=0, timeout=10) as client:
        yield client


def behind(feature: str) -> pytest.MarkDecorator:
    return pytest.mark.cell(client=BEHIND, feature=feature)


def ask(client: openai.OpenAI, **members: Any) -> Any:
    return client.chat.completions.create(**{"model": CHAT, "messages": HELLO, **members})


@behind("chat")
def test_chat_crosses_both_with_litellms_own_fields(proxy: ProxyProcess, sandbox: SandboxClient) -> None:
    body = {"model": CHAT, "messages": HELLO}
    answer = httpx.post(f"{proxy.api}/chat/completions", json=body, trust_env=False, timeout=20)
    assert answer.json()["choices"][0]["message"]["content"] == "You said: Hello wörld"
    ours = {name for name in answer.headers if name.startswith("x-litellm-")}
    assert ours >= {"x-litellm-call-id", "x-litellm-version"}
    assert "llm_provider-x-request-id" not in answer.headers  # what it repeats of its own upstream's fields


@behind("stream")
def test_streamed_chat_is_the_same_text(client: openai.OpenAI) -> None:
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "You said: Hello wörld"
    assert chunks[-1].usage is not None


@behind("tools")
def test_a_tool_is_called(client: openai.OpenAI) -> None:
    (call,) = ask(client, tools=TOOLS).choices[0].message.tool_calls
    assert json.loads(call.function.arguments) == {"city": "You said: Hello wörld", "days": 1}


@behind("structured output")
def test_an_answer_follows_the_schema(client: openai.OpenAI) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "trip", "schema": TRIP, "strict": True}}
    content = ask(client, response_format=schema).choices[0].message.content
    assert json.loads(content) == {"city": "You said: Hello wörld", "days": 1}


@pytest.mark.parametrize(
    ("inputs", "options"),
    [
        pytest.param(["one", "two"], {"encoding_format": "float"}, marks=behind("embeddings (floats)"), id="floats"),
        pytest.param(["one", "two"], {}, marks=behind("embeddings (base64)"), id="base64"),
        pytest.param([[1, 2], [3]], {}, marks=behind("token arrays"), id="tokens"),
    ],
)
def test_embeddings_are_those_of_the_model_itself(client: openai.OpenAI, inputs: Any, options: Any) -> None:
    expected = client.embeddings.create(model="sandbox-embedding", input=inputs, encoding_format="float")
    answer = client.embeddings.create(model=EMBEDDING, input=inputs, **options)
    assert [item.embedding for item in answer.data] == [
        pytest.approx(item.embedding, abs=1e-6) for item in expected.data
    ]


@behind("vision parts")
def test_parts_reach_the_model(client: openai.OpenAI, sandbox: SandboxClient) -> None:
    content = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": PICTURE}]
    ask(client, messages=[{"role": "user", "content": content}])
    assert json.loads(sandbox.last()["body"])["messages"][0]["content"] == content


@behind("errors")
def test_an_error_of_the_model_crosses_with_its_words(client: openai.OpenAI, sandbox: SandboxClient) -> None:
    error = {"message": "max_tokens too large", "type": "some_error", "param": "max_tokens", "code": "x"}
    sandbox.faults(upstream=[{"kind": "status", "status": 400, "body": json.dumps({"error": error})}])
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError, match="max_tokens too large"):
            ask(client, stream=stream)
    sandbox.faults(upstream=[{"kind": "cut", "frames": 4}])
    with pytest.raises(openai.APIError, match="broke off"):
        list(ask(client, stream=True))


@behind("cancel")
def test_a_stream_that_is_closed_is_gone_at_the_model_too(client: openai.OpenAI, sandbox: SandboxClient) -> None:
    sandbox.faults(upstream=[{"kind": "stall", "frames": 4}])
    with ask(client, stream=True) as stream:
        next(iter(stream))
    sandbox.wait_until(lambda state: state["open"] == 0, within_s=1)
    assert sandbox.last()["end"] == "caller_gone"
