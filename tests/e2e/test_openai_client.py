"""The official Python client, as most callers use the proxy."""

import asyncio
import base64
from array import array
from typing import Any

import openai
import pytest

from tests.support.proxy_process import ProxyProcess
from tests.support.sandbox_client import SandboxClient

PREFIXES = ("/agent/api/llm_proxy/v1", "/agent/api/llm_proxy", "/agent/api/llm_proxy/v1/v1", "/v1", "", "/v1/v1")
HELLO: Any = [{"role": "user", "content": "Hello wörld"}]
TOOLS: Any = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]


@pytest.fixture
def client(proxy: ProxyProcess) -> openai.OpenAI:
    return openai.OpenAI(base_url=proxy.api, api_key="any", max_retries=0)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_chat_answers_under_every_prefix(proxy: ProxyProcess, prefix: str) -> None:
    client = openai.OpenAI(base_url=proxy.url + prefix, api_key="any", max_retries=0)
    answer = client.chat.completions.create(model="sandbox-chat", messages=HELLO)
    assert "Hello wörld" in (answer.choices[0].message.content or "")


def test_streamed_chat_is_the_same_text_and_ends_with_usage(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="m", messages=HELLO).choices[0].message.content
    stream = client.chat.completions.create(
        model="m", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == whole
    assert chunks[-1].usage is not None
    assert chunks[-2].choices[0].finish_reason == "stop"


def test_tool_calls_arrive_whole_and_streamed(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="m", messages=HELLO, tools=TOOLS).choices[0].message.tool_calls
    assert whole is not None
    assert whole[0].type == "function"
    assert whole[0].function.name == "weather"
    stream = client.chat.completions.create(model="m", messages=HELLO, tools=TOOLS, stream=True)
    pieces = [piece for chunk in stream for piece in (chunk.choices[0].delta.tool_calls or []) if chunk.choices]
    names = [piece.function.name for piece in pieces if piece.function and piece.function.name]
    assert names == ["weather"]


@pytest.mark.parametrize(
    "inputs",
    ["one text", ["one", "two"], [1, 2, 3], [[1, 2], [3]]],
    ids=["text", "texts", "token array", "token arrays"],
)
def test_embeddings_are_the_same_as_floats_and_as_base64(client: openai.OpenAI, inputs: Any) -> None:
    floats = client.embeddings.create(model="e", input=inputs, encoding_format="float").data
    packed = client.embeddings.create(model="e", input=inputs).data  # the client asks for base64 and unpacks it
    for one, other in zip(floats, packed, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)


def test_base64_is_honoured_where_the_upstream_ignores_it(client: openai.OpenAI, sandbox: SandboxClient) -> None:
    expected = client.embeddings.create(model="e", input=["a", "b"], encoding_format="base64").data
    sandbox.faults(upstream=[{"kind": "ignore_base64"}])
    converted = client.embeddings.create(model="e", input=["a", "b"], encoding_format="base64").data
    assert [item.embedding for item in converted] == [item.embedding for item in expected]
    text: Any = converted[0].embedding
    assert len(array("f", base64.b64decode(text))) == 8


def test_models_are_listed_and_found(client: openai.OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert "sandbox-chat" in names
    assert client.models.retrieve("sandbox-chat").model_dump()["context_window"] == 128000
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("no-such-model")


def test_legacy_completions_and_responses_answer(client: openai.OpenAI) -> None:
    assert client.completions.create(model="m", prompt="Hello").choices[0].text
    assert client.responses.create(model="m", input="Hello").output_text
    events = [event.type for event in client.responses.create(model="m", input="Hello", stream=True)]
    assert events[0] == "response.created"
    assert events[-1] == "response.completed"


def test_async_client_runs_many_requests_at_once(proxy: ProxyProcess) -> None:
    async def run() -> list[str]:
        async with openai.AsyncOpenAI(base_url=proxy.api, api_key="any", max_retries=0) as client:

            async def one(number: int) -> str:
                text = ""
                messages: Any = [{"role": "user", "content": f"number {number}"}]
                async for chunk in await client.chat.completions.create(model="m", messages=messages, stream=True):
                    text += chunk.choices[0].delta.content or "" if chunk.choices else ""
                return text

            return await asyncio.gather(*(one(number) for number in range(20)))

    texts = asyncio.run(run())
    assert all(f"number {number}" in text for number, text in enumerate(texts))


def test_an_upstream_error_reaches_the_client_as_its_own_class(client: openai.OpenAI, sandbox: SandboxClient) -> None:
    body = '{"error": {"message": "max_tokens too large", "type": "invalid_request_error", "code": "x"}}'
    sandbox.faults(upstream=[{"kind": "status", "status": 400, "body": body}])
    with pytest.raises(openai.BadRequestError, match="max_tokens too large"):
        client.chat.completions.create(model="m", messages=HELLO)
