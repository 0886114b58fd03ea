"""Upstreams with other APIs than OpenAI's, through the proxy, as the official client sees them."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.support.adapters_page import company_module
from tests.support.api_server import ApiRequest, ApiServer, send_json
from tests.support.dashscope_server import ARGUMENTS, ID, DashScopeServer, vector_of
from tests.support.plain_sse_server import PlainSseServer
from tests.support.proxy_process import ProxyFarm, ProxyProcess, free_port, launch
from tests.support.sandbox_client import SandboxClient
from tests.support.waiting import wait_for

HELLO: Any = [{"role": "user", "content": "Hello wörld"}]
TOOLS: Any = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]
BROKE_OFF = "The upstream stream broke off."


@pytest.fixture(scope="module")
def _qwen() -> Iterator[DashScopeServer]:
    with DashScopeServer() as server:
        yield server


@pytest.fixture(scope="module")
def _local() -> Iterator[PlainSseServer]:
    with PlainSseServer() as server:
        yield server


@pytest.fixture
def qwen(_qwen: DashScopeServer) -> DashScopeServer:
    _qwen.reset()
    return _qwen


@pytest.fixture
def local(_local: PlainSseServer) -> PlainSseServer:
    _local.reset()
    _local.answers_json = False
    return _local


@pytest.fixture
def proxy(farm: ProxyFarm, sandbox: SandboxClient, qwen: DashScopeServer, local: PlainSseServer) -> ProxyProcess:
    """Three upstreams; the sandbox is the second of the first one, for one of its models."""
    config = sandbox.config(upstream={"models": {"either": "sandbox-chat"}})
    first = {
        "name": "qwen",
        "base_url": qwen.base_url,
        "adapter": "dashscope",
        "token_source": "qwen",
        "models": {"fast": "qwen-turbo", "text-embedding-v4": "text-embedding-v4", "either": "qwen-plus"},
        "embeddings": {"max_batch": 10},
        "keepalive_comment_s": 0.2,
        "fail_over_to": "llm",
    }
    other = {"name": "local", "base_url": local.url, "adapter": "plain_sse", "models": {"local": "chatglm3-6b"}}
    corp = config["token_sources"]["corp"]
    sources = {"corp": corp, "qwen": {**corp, "default_lifetime_s": 299}}  # whose refused tokens are no one else's
    return farm.proxy({**config, "token_sources": sources, "upstreams": [first, other, *config["upstreams"]]})


@pytest.fixture
def client(proxy: ProxyProcess) -> openai.OpenAI:
    return openai.OpenAI(base_url=proxy.api, api_key="any", max_retries=0)


def streamed(client: openai.OpenAI, model: str, **members: Any) -> list[Any]:
    return list(client.chat.completions.create(model=model, messages=HELLO, stream=True, **members))


def text_of(chunks: list[Any]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


# DashScope: chat


def test_chat_is_asked_in_dashscopes_way_and_answered_in_openais(client: openai.OpenAI, qwen: DashScopeServer) -> None:
    answer = client.chat.completions.create(
        model="fast",
        messages=[{"role": "developer", "content": "Be brief."}, *HELLO],
        temperature=0.5,
        max_completion_tokens=50,
        user="someone",
        extra_body={"enable_thinking": True, "top_k": 5},
    )
    choice = answer.choices[0]
    assert (choice.message.content, choice.finish_reason, choice.message.role) == (
        "Echo: Hello wörld",
        "stop",
        "assistant",
    )
    assert choice.message.model_dump()["reasoning_content"] == "Let me think."
    assert (answer.id, answer.model, answer.object) == (f"chatcmpl-{ID}", "qwen-turbo", "chat.completion")
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (7, 3, 10)
    assert answer.usage.completion_tokens_details is not None
    assert answer.usage.completion_tokens_details.reasoning_tokens == 1
    assert "x-dashscope-sse" not in qwen.last.fields
    messages = [{"role": "system", "content": "Be brief."}, *HELLO]
    parameters = {"temperature": 0.5, "max_tokens": 50, "enable_thinking": True, "top_k": 5, "result_format": "message"}
    assert qwen.last.body == {"model": "qwen-turbo", "input": {"messages": messages}, "parameters": parameters}


def test_streamed_chat_is_the_same_with_usage_where_asked_for(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="fast", messages=HELLO)
    chunks = streamed(client, "fast", stream_options={"include_usage": True})
    assert text_of(chunks) == whole.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * 3 + ["stop"]
    assert chunks[-1].usage == whole.usage
    assert {chunk.id for chunk in chunks} == {f"chatcmpl-{ID}"}
    assert [chunk.choices[0].delta.role for chunk in chunks[:-1]] == ["assistant", None, None, None]
    assert all(chunk.usage is None for chunk in streamed(client, "fast"))


def test_reasoning_and_the_reason_for_the_end_cross_in_a_stream(client: openai.OpenAI) -> None:
    chunks = streamed(client, "fast", max_tokens=2, extra_body={"enable_thinking": True})
    thoughts = "".join(chunk.choices[0].delta.model_dump().get("reasoning_content") or "" for chunk in chunks)
    assert (thoughts, text_of(chunks)) == ("Let me think.", "Echo: Hello")
    assert chunks[-1].choices[0].finish_reason == "length"


def test_tool_calls_arrive_whole_and_streamed(client: openai.OpenAI) -> None:
    choice = client.chat.completions.create(model="fast", messages=HELLO, tools=TOOLS).choices[0]
    assert choice.finish_reason == "tool_calls"
    calls = [(call.id, call.function.name, call.function.arguments) for call in choice.message.tool_calls or ()]
    assert calls == [("call_0", "weather", ARGUMENTS), ("call_1", "weather", "{}")]
    with client.chat.completions.stream(model="fast", messages=HELLO, tools=TOOLS) as stream:
        last = stream.get_final_completion().choices[0]
    assert last.finish_reason == "tool_calls"
    calls = [(call.id, call.function.name, call.function.arguments) for call in last.message.tool_calls or ()]
    assert calls == [("call_0", "weather", ARGUMENTS), ("call_1", "weather", "{}")]


def test_answer_to_a_tool_goes_back_as_texts(client: openai.OpenAI, qwen: DashScopeServer) -> None:
    call = {"id": "call_0", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    messages: Any = [
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_0", "content": [{"type": "text", "text": "sun"}]},
    ]
    assert client.chat.completions.create(model="fast", messages=messages).choices[0].message.content == "Echo: sun"
    sent = qwen.last.body["input"]["messages"]
    assert sent[1] == {"role": "assistant", "content": "", "tool_calls": [call]}
    assert sent[2] == {"role": "tool", "tool_call_id": "call_0", "content": "sun"}


# DashScope: embeddings


@pytest.mark.parametrize("count", [1, 10, 25], ids=["one", "as many as are taken", "three parts"])
def test_embeddings_come_in_order_as_floats_and_as_base64(
    client: openai.OpenAI, qwen: DashScopeServer, count: int
) -> None:
    texts = ["x" * at for at in range(1, count + 1)]
    floats = client.embeddings.create(
        model="text-embedding-v4", input=texts, dimensions=3, encoding_format="float", extra_body={"text_type": "query"}
    )
    assert [item.embedding for item in floats.data] == [vector_of(text, 3) for text in texts]
    assert [item.index for item in floats.data] == list(range(count))
    assert (floats.usage.prompt_tokens, floats.usage.total_tokens) == (count, count)
    assert {request.body["parameters"]["text_type"] for request in qwen.requests} == {"query"}
    packed = client.embeddings.create(model="text-embedding-v4", input=texts, dimensions=3)  # asks for base64
    assert [item.embedding for item in packed.data] == [vector_of(text, 3) for text in texts]
    assert len(qwen.requests) == 2 * -(-count // 10)


def test_failed_part_fails_the_whole_with_the_upstreams_error(client: openai.OpenAI, qwen: DashScopeServer) -> None:
    qwen.fault = "throttled"
    with pytest.raises(openai.RateLimitError, match=r"rate limit exceeded") as caught:
        client.embeddings.create(model="text-embedding-v4", input=["a"] * 25)
    assert caught.value.code == "Throttling.RateQuota"


# Errors


def test_dashscopes_errors_are_openais(client: openai.OpenAI) -> None:
    body = [{"role": "critic", "content": "Hi"}]
    with pytest.raises(openai.BadRequestError, match=r"Role must be in") as caught:
        client.chat.completions.create(model="fast", messages=body)  # type: ignore[arg-type]
    assert caught.value.code == "InvalidParameter"
    assert caught.value.type == "invalid_request_error"


@pytest.mark.parametrize("fault", ["throttled", "throttled stream"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_throttling_reaches_the_caller_or_lets_a_second_upstream_answer(
    client: openai.OpenAI, qwen: DashScopeServer, fault: str, stream: bool
) -> None:
    qwen.fault = fault
    with pytest.raises(openai.RateLimitError, match=r"rate limit exceeded") as caught:
        client.chat.completions.create(model="fast", messages=HELLO, stream=stream)
    assert caught.value.code == "Throttling.RateQuota"
    answer: Any = client.chat.completions.create(model="either", messages=HELLO, stream=stream)
    text = text_of(list(answer)) if stream else answer.choices[0].message.content
    assert "Hello wörld" in text


def test_error_in_the_midst_of_a_stream_is_raised_by_the_client(client: openai.OpenAI, qwen: DashScopeServer) -> None:
    qwen.fault = "inspected"
    stream = client.chat.completions.create(model="fast", messages=HELLO, stream=True)
    assert next(stream).choices[0].delta.content == "Echo:"
    with pytest.raises(openai.APIError, match=r"Output data may be inappropriate"):
        next(stream)


MODELS = ("fast", "local")


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server(model: str, qwen: DashScopeServer, local: PlainSseServer) -> ApiServer:
    """The one behind the model."""
    return {"fast": qwen, "local": local}[model]


def test_cut_stream_is_told_as_any_other(client: openai.OpenAI, model: str, server: ApiServer) -> None:
    server.fault = "cut"
    stream = client.chat.completions.create(model=model, messages=HELLO, stream=True)
    assert next(stream).choices[0].delta.content in ("Echo:", "Echo: ")
    with pytest.raises(openai.APIError, match=BROKE_OFF):
        list(stream)


def test_caller_that_leaves_closes_the_upstream(client: openai.OpenAI, model: str, server: ApiServer) -> None:
    server.fault = "silent"
    stream = client.chat.completions.create(model=model, messages=HELLO, stream=True)
    next(stream)
    stream.close()
    server.wait_until_left()


def test_silent_stream_is_kept_alive(proxy: ProxyProcess, qwen: DashScopeServer) -> None:
    qwen.fault = "silent"
    body = {"model": "fast", "messages": HELLO, "stream": True}
    with httpx.stream("POST", f"{proxy.api}/chat/completions", json=body, trust_env=False) as answer:
        lines = answer.iter_lines()
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert next(line for line in lines if line.startswith(":")) == ": keep-alive"
    qwen.wait_until_left()


def test_refused_token_is_replaced_and_nobody_sees_it(client: openai.OpenAI, qwen: DashScopeServer) -> None:
    client.chat.completions.create(model="fast", messages=HELLO)
    qwen.revoked.add(qwen.last.fields["authorization"].removeprefix("Bearer "))
    assert text_of(streamed(client, "fast")) == "Echo: Hello wörld"
    assert len(qwen.requests) == 3


def test_answer_that_the_adapter_cannot_read_is_502_and_the_log_says_where(
    client: openai.OpenAI, proxy: ProxyProcess, qwen: DashScopeServer
) -> None:
    qwen.fault = "nonsense"
    since = proxy.logged_bytes()
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model="fast", messages=HELLO)
    assert (caught.value.status_code, caught.value.code) == (502, "upstream_unavailable")
    wait_for(lambda: proxy.access_lines(since))
    assert "adapter proxy.adapters.dashscope:DashScope: KeyError at dashscope.py:" in proxy.log(since)
    assert "s3cret-mark" not in proxy.log()


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        pytest.param("rerank", {"query": "a", "documents": ["b"]}, 404, id="rerank"),
        pytest.param("completions", {"prompt": "a"}, 404, id="completions"),
        pytest.param("images/generations", {"prompt": "a"}, 404, id="images"),
        pytest.param("embeddings", {"input": [1, 2]}, 400, id="token array"),
        pytest.param("chat/completions", {}, 400, id="no messages"),
        pytest.param(
            "chat/completions",
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]},
            400,
            id="image",
        ),
    ],
)
def test_what_the_upstream_does_not_serve_is_refused_by_us(
    proxy: ProxyProcess, qwen: DashScopeServer, path: str, body: dict[str, Any], status: int
) -> None:
    answer = httpx.post(f"{proxy.api}/{path}", json={"model": "fast", **body}, trust_env=False)
    assert (answer.status_code, answer.json()["error"]["type"]) == (status, "invalid_request_error")
    assert "This model's upstream" in answer.json()["error"]["message"]
    assert qwen.requests == []


def test_models_are_the_names_of_the_config(client: openai.OpenAI) -> None:
    assert sorted(model.id for model in client.models.list()) == ["either", "fast", "local", "text-embedding-v4"]


# A plain service


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("answers_json", [False, True], ids=["one event", "JSON"])
def test_plain_service_is_asked_with_query_and_history(
    client: openai.OpenAI, local: PlainSseServer, stream: bool, answers_json: bool
) -> None:
    local.answers_json = answers_json
    messages: Any = [{"role": "system", "content": "Be brief."}, *HELLO]
    answer: Any = client.chat.completions.create(model="local", messages=messages, stream=stream, max_tokens=50)
    if stream:
        chunks = list(answer)
        assert {chunk.id for chunk in chunks} == {"chatcmpl-741a630a"}
        assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
        assert text_of(chunks) == "Echo: Hello wörld"
    else:
        assert (answer.id, answer.choices[0].message.content) == ("chatcmpl-741a630a", "Echo: Hello wörld")
        assert answer.choices[0].finish_reason == "stop"
    history = [{"role": "system", "content": "Be brief."}]
    rest = {"stream": stream, "model_name": "chatglm3-6b", "max_tokens": 50}
    assert local.last.body == {"query": "Hello wörld", "history": history, **rest}


@pytest.mark.parametrize(
    ("fault", "status", "message"),
    [
        ("refused", 422, "Input should be at most 2"),
        ("missing", 404, "no such model"),
        ("busy", 503, "Upstream service unavailable, please retry."),
    ],
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_plain_services_errors_are_openais(
    client: openai.OpenAI, local: PlainSseServer, fault: str, status: int, message: str, stream: bool
) -> None:
    local.fault = fault
    with pytest.raises(openai.APIStatusError, match=message) as caught:
        client.chat.completions.create(model="local", messages=HELLO, stream=stream)
    assert caught.value.status_code == status


# One of the operator's own


class CompanyServer(ApiServer):
    """What docs/adapters.md tells of."""

    def answer(self, request: ApiRequest, sock: Any) -> None:
        if request.path == "/vectorize":
            send_json(
                sock, {"ret": 0, "result": {"vectors": [[1, 2] for _ in request.body["sentences"]], "inTokens": 3}}
            )
            return
        said = request.body["dialog"][-1]["say"]
        counts = {"stop": "END", "inTokens": 3, "outTokens": 2}
        if said == "busy":
            send_json(sock, {"ret": 1001, "msg": "too many calls"})
        elif request.body["stream"]:
            pieces: list[dict[str, Any]] = [{"piece": "Echo: "}, {"piece": said}, counts]
            self.send_stream(sock, [_event({"ret": 0, "result": piece}) for piece in pieces])
        else:
            send_json(sock, {"ret": 0, "result": {"reply": f"Echo: {said}", **counts}})


def _event(document: Any) -> bytes:
    return b"data: " + json.dumps(document).encode() + b"\n\n"


@pytest.fixture
def company() -> Iterator[CompanyServer]:
    with CompanyServer() as server:
        yield server


def own_config(company: CompanyServer) -> dict[str, Any]:
    upstream = {"name": "own", "base_url": company.url, "adapter": "company_llm:GatewayWithVectors"}
    return {"server": {"workers": 1, "drain_s": 1}, "upstreams": [upstream]}


def test_adapter_of_the_docs_serves_from_beside_the_config_and_a_broken_edit_of_it_changes_nothing(
    company: CompanyServer, tmp_path: Path
) -> None:
    module = tmp_path / "company_llm.py"
    module.write_text(company_module())
    proxy = ProxyProcess.start(own_config(company), tmp_path)
    try:
        client = openai.OpenAI(base_url=proxy.api, api_key="any", max_retries=0)

        def says(model: str = "chat-large") -> str:
            answer = client.chat.completions.create(model=model, messages=HELLO)
            assert answer.usage is not None
            assert answer.usage.total_tokens == 5
            return str(answer.choices[0].message.content)

        assert says() == text_of(streamed(client, "chat-large")) == "Echo: Hello wörld"
        assert client.embeddings.create(model="v", input=["a", "b"]).data[1].embedding == [1, 2]
        with pytest.raises(openai.RateLimitError, match="too many calls"):
            client.chat.completions.create(model="chat-large", messages=[{"role": "user", "content": "busy"}])

        module.write_text(company_module() + "\nraise OSError\n")
        since = proxy.logged_bytes()
        proxy.signal(signal.SIGHUP)
        wait_for(lambda: "upstreams[0].adapter: cannot be imported: OSError" in proxy.log(since), within_s=15)
        wait_for(lambda: says() == "Echo: Hello wörld", within_s=15)

        module.write_text(company_module().replace('result["reply"]', 'result["reply"].upper()'))
        proxy.signal(signal.SIGHUP)
        wait_for(lambda: says() == "ECHO: HELLO WÖRLD", within_s=15)
    finally:
        assert proxy.stop() == 0


def test_start_with_an_adapter_that_is_missing_says_where_and_ends(company: CompanyServer, tmp_path: Path) -> None:
    process = launch(own_config(company), tmp_path, port := free_port())
    assert process.wait(20) == 1
    text = (tmp_path / f"{port}.log").read_text()
    assert text == "config: upstreams[0].adapter: cannot be imported: ModuleNotFoundError company_llm\n"
