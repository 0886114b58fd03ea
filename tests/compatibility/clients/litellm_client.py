"""LiteLLM's SDK in front of the proxy, which it knows as an OpenAI-like service."""

import base64
import json
import struct

import litellm
from pydantic import BaseModel
from trial import (
    A_TRIP,
    ANSWER,
    BASE_URL,
    HELLO,
    KEY,
    PICTURE,
    TRIP,
    failure,
    report,
    same_vectors,
    sandbox,
    vectors_of,
)

AT = {"api_base": BASE_URL, "api_key": KEY, "num_retries": 0, "max_retries": 0}
TEXTS = ["one", "two", "three"]
TOOLS = [{"type": "function", "function": {"name": "plan", "parameters": TRIP}}]


class Trip(BaseModel):
    city: str
    days: int


def ask(content: object = HELLO, **options: object) -> object:
    messages = [{"role": "user", "content": content}]
    return litellm.completion(model="openai/sandbox-chat", messages=messages, **AT, **options)


def embed(inputs: object, **options: object) -> list[object]:
    answer = litellm.embedding(model="openai/sandbox-embedding", input=inputs, **AT, **options)
    return [item["embedding"] for item in answer.data]


def chat() -> None:
    assert ask().choices[0].message.content == ANSWER


def stream() -> None:
    chunks = list(ask(stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == ANSWER
    assert chunks[-1].usage.total_tokens > 0


def tools() -> None:
    (whole,) = ask(tools=TOOLS).choices[0].message.tool_calls
    streamed = litellm.stream_chunk_builder(list(ask(tools=TOOLS, stream=True)))
    (joined,) = streamed.choices[0].message.tool_calls
    for call in (whole, joined):
        assert (call.function.name, json.loads(call.function.arguments)) == ("plan", A_TRIP)


def structured_output() -> None:
    assert Trip.model_validate_json(ask(response_format=Trip).choices[0].message.content) == Trip(**A_TRIP)


def embeddings_as_floats() -> None:
    assert same_vectors(embed(TEXTS, encoding_format="float"), vectors_of(TEXTS))


def embeddings_as_base64() -> None:
    expected = vectors_of(TEXTS)
    for ignores in (False, True):
        if ignores:
            sandbox.ignores_base64()
        packed = [base64.b64decode(text) for text in embed(TEXTS, encoding_format="base64")]
        assert same_vectors([struct.unpack(f"<{len(bytes_) // 4}f", bytes_) for bytes_ in packed], expected)


def token_arrays() -> None:
    assert len(embed([[1, 2], [3]])) == 2
    assert sandbox.asked()["input"] == [[1, 2], [3]]


def rerank() -> None:
    answer = litellm.rerank(
        model="hosted_vllm/sandbox-rerank",
        query="red house",
        documents=["green tree", "red house"],
        top_n=1,
        api_base=BASE_URL,
        api_key=KEY,
    )
    assert [result["index"] for result in answer.results] == [1]


def vision_parts() -> None:
    content = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": PICTURE}}]
    ask(content)
    assert sandbox.asked()["messages"][0]["content"] == content


def errors() -> None:
    sandbox.refuses()
    assert "max_tokens too large" in str(failure(ask, litellm.BadRequestError))


def cancel() -> None:
    sandbox.stalls()
    answer = ask(stream=True)
    assert next(answer) is not None
    answer.completion_stream.close()
    sandbox.wait_until_left()


report(
    {
        "chat": chat,
        "stream": stream,
        "tools": tools,
        "structured output": structured_output,
        "embeddings (floats)": embeddings_as_floats,
        "embeddings (base64)": embeddings_as_base64,
        "token arrays": token_arrays,
        "rerank": rerank,
        "vision parts": vision_parts,
        "errors": errors,
        "cancel": cancel,
    }
)
