"""Open WebUI's server in its slim form, with the proxy as its OpenAI connection: what it asks when its page is used."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.compatibility import Client
from tests.support.foreign_client import Server, version_of
from tests.support.proxy_process import ProxyFarm, ProxyProcess, free_port
from tests.support.sandbox_client import SandboxClient

NAME = "open-webui"
ROW = "Open WebUI"
CLIENTS = [Client(ROW, version_of(NAME, "open-webui"))]
KEY = "key-of-open-webui"
ADMIN = {"name": "Admin", "email": "admin@example.com", "password": "Pass-word-1"}
HELLO = {"model": "sandbox-chat", "messages": [{"role": "user", "content": "Hello wörld"}]}
ANSWER = "You said: Hello wörld"
TRIP = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
PICTURE = {"url": "data:image/png;base64,iVBORw0KGgo="}


def cell(feature: str) -> pytest.MarkDecorator:
    return pytest.mark.cell(client=ROW, feature=feature)


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def server(
    port: int, farm: ProxyFarm, _sandbox_of_session: SandboxClient, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    proxy = farm.proxy(_sandbox_of_session.config(server={"worker_class": "gevent"}))
    folder = tmp_path_factory.mktemp(NAME)
    arguments = [str(port), f"{proxy.api}/rerank", KEY]
    with Server.of_script(NAME, arguments, folder, {**_settings(proxy), "DATA_DIR": str(folder)}) as server:
        server.wait_until_answers(f"http://127.0.0.1:{port}/health")
        yield server


def _settings(proxy: ProxyProcess) -> dict[str, str]:
    """Its documented variables; beside the connections, what keeps it from asking the internet."""
    return {
        "OPENAI_API_BASE_URL": proxy.api,
        "OPENAI_API_KEY": KEY,
        "RAG_EMBEDDING_ENGINE": "openai",  # else it loads a model of its own
        "ENABLE_OLLAMA_API": "false",
        "OFFLINE_MODE": "true",
        "USE_SLIM_DOCKER": "true",
        "FROM_INIT_PY": "true",
        "WEBUI_SECRET_KEY": "secret-of-open-webui",
    }


@pytest.fixture(scope="module")
def browser(server: Server, port: int) -> Iterator[httpx.Client]:
    """What the page asks with: the first who signs up is the administrator."""
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=20) as client:
        token = client.post("/api/v1/auths/signup", json=ADMIN).raise_for_status().json()["token"]
        client.headers["Authorization"] = f"Bearer {token}"
        models = client.get("/api/models").raise_for_status().json()["data"]
        assert {model["id"] for model in models} >= {"sandbox-chat"}  # and it must have listed them before it chats
        yield client


def ask(browser: httpx.Client, **members: Any) -> httpx.Response:
    return browser.post("/api/chat/completions", json={**HELLO, **members})


def message_of(answer: httpx.Response) -> Any:
    return answer.raise_for_status().json()["choices"][0]["message"]


@cell("chat")
def test_chat_answers(browser: httpx.Client, sandbox: SandboxClient) -> None:
    assert message_of(ask(browser))["content"] == ANSWER


@cell("stream")
def test_streamed_chat_is_the_same_text(browser: httpx.Client, sandbox: SandboxClient) -> None:
    lines = ask(browser, stream=True).text.splitlines()
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks) == ANSWER
    assert "data: [DONE]" in lines


@cell("tools")
def test_a_tool_is_called(browser: httpx.Client, sandbox: SandboxClient) -> None:
    tools = [{"type": "function", "function": {"name": "plan", "parameters": TRIP}}]
    (call,) = message_of(ask(browser, tools=tools))["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"city": ANSWER, "days": 1}


@cell("structured output")
def test_an_answer_follows_the_schema(browser: httpx.Client, sandbox: SandboxClient) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "trip", "schema": TRIP, "strict": True}}
    assert json.loads(message_of(ask(browser, response_format=schema))["content"]) == {"city": ANSWER, "days": 1}


@pytest.mark.parametrize(
    ("inputs", "options"),
    [
        pytest.param(["one", "two"], {"encoding_format": "float"}, marks=cell("embeddings (floats)"), id="floats"),
        pytest.param(["one", "two"], {"encoding_format": "base64"}, marks=cell("embeddings (base64)"), id="base64"),
        pytest.param([[1, 2], [3]], {}, marks=cell("token arrays"), id="tokens"),
    ],
)
def test_its_embeddings_route_asks_for_what_it_was_asked(
    browser: httpx.Client, sandbox: SandboxClient, inputs: Any, options: Any
) -> None:
    body = {"model": "sandbox-embedding", "input": inputs, **options}
    answer = browser.post("/api/embeddings", json=body).raise_for_status().json()
    assert [item["index"] for item in answer["data"]] == [0, 1]
    kind = str if options.get("encoding_format") == "base64" else list
    assert all(isinstance(item["embedding"], kind) for item in answer["data"])
    assert json.loads(sandbox.last()["body"]) == body


@cell("rerank")
def test_its_external_reranker_scores_documents(server: Server) -> None:
    assert "scores: [0.0, 1.0]" in server.log()


@cell("vision parts")
def test_parts_reach_the_model(browser: httpx.Client, sandbox: SandboxClient) -> None:
    content = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": PICTURE}]
    ask(browser, messages=[{"role": "user", "content": content}]).raise_for_status()
    assert json.loads(sandbox.last()["body"])["messages"][0]["content"] == content


@cell("errors")
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_an_error_of_the_model_is_shown(browser: httpx.Client, sandbox: SandboxClient, stream: bool) -> None:
    error = {"message": "max_tokens too large", "type": "some_error", "param": "max_tokens", "code": "x"}
    sandbox.faults(upstream=[{"kind": "status", "status": 400, "body": json.dumps({"error": error})}])
    answer = ask(browser, stream=stream)
    assert answer.status_code == 400
    assert "max_tokens too large" in answer.text


@cell("cancel")
def test_a_stream_that_the_page_leaves_is_gone_at_the_model_too(browser: httpx.Client, sandbox: SandboxClient) -> None:
    sandbox.faults(upstream=[{"kind": "stall", "frames": 4}])
    with browser.stream("POST", "/api/chat/completions", json={**HELLO, "stream": True}) as answer:
        next(answer.iter_lines())
    sandbox.wait_until(lambda state: state["open"] == 0, within_s=2)
    assert sandbox.last()["end"] == "caller_gone"
