"""Langchain-Chatchat's own way to a model platform: the clients that it builds and its OpenAI-like routes before them.

Its documents, agents and pages are left out, and so is what only those need. It counts tokens with a vocabulary that
tiktoken fetches from the internet; here each character is a token.
"""

import gc
import json
import os
from pathlib import Path
from typing import Any

import tiktoken
import yaml
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


class Characters:
    def encode(self, text: str, **_: Any) -> list[int]:
        return [ord(character) for character in text]


tiktoken.encoding_for_model = tiktoken.get_encoding = lambda _: Characters()
ROOT = Path.cwd()  # a folder of the test's
PLATFORM = {"api_base_url": BASE_URL, "api_key": KEY}
PLATFORMS = [
    {"platform_name": "a", "platform_type": "openai", "embed_models": ["by-tokens"], **PLATFORM},
    {"platform_name": "b", "platform_type": "custom openai", "embed_models": ["by-texts"], **PLATFORM},
]
PLATFORMS[0]["llm_models"] = ["sandbox-chat"]
MODELS = {"DEFAULT_LLM_MODEL": "sandbox-chat", "DEFAULT_EMBEDDING_MODEL": "by-texts", "MODEL_PLATFORMS": PLATFORMS}
(ROOT / "model_settings.yaml").write_text(yaml.safe_dump(MODELS))
os.environ["CHATCHAT_ROOT"] = str(ROOT)  # read while it is imported

import openai  # noqa: E402
from chatchat.server.api_server.openai_routes import openai_router  # noqa: E402
from chatchat.server.utils import get_ChatOpenAI, get_Embeddings  # noqa: E402
from fastapi import FastAPI  # noqa: E402
from fastapi.testclient import TestClient  # noqa: E402

app = FastAPI()
app.include_router(openai_router)
ROUTES = TestClient(app)  # entered below, so that all requests meet on one event loop
TEXTS = ["one", "two", "three"]


def ask(content: Any = HELLO, **members: Any) -> Any:
    """The answer of its own route."""
    body = {"model": "sandbox-chat", "messages": [{"role": "user", "content": content}], **members}
    answer = ROUTES.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    return answer


def message_of(answer: Any) -> Any:
    return answer.json()["choices"][0]["message"]


def chat() -> None:
    assert {model["id"] for model in ROUTES.get("/v1/models").json()["data"]} >= {"sandbox-chat"}
    assert get_ChatOpenAI("sandbox-chat").invoke(HELLO).content == ANSWER
    assert message_of(ask())["content"] == ANSWER


def stream() -> None:
    assert "".join(chunk.content for chunk in get_ChatOpenAI("sandbox-chat").stream(HELLO)) == ANSWER
    lines = ask(stream=True).text.splitlines()
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    assert "".join(chunk["choices"][0]["delta"]["content"] or "" for chunk in chunks) == ANSWER


def tools() -> None:
    plan = {"type": "function", "function": {"name": "plan", "parameters": TRIP}}
    (call,) = message_of(ask(tools=[plan]))["tool_calls"]
    assert (call["function"]["name"], json.loads(call["function"]["arguments"])) == ("plan", A_TRIP)


def structured_output() -> None:
    response_format = {"type": "json_schema", "json_schema": {"name": "trip", "schema": TRIP, "strict": True}}
    assert json.loads(message_of(ask(response_format=response_format))["content"]) == A_TRIP


def embeddings_as_floats() -> None:
    body = {"model": "by-texts", "input": TEXTS, "encoding_format": "float"}
    answer = ROUTES.post("/v1/embeddings", json=body).json()
    assert same_vectors([item["embedding"] for item in answer["data"]], vectors_of(TEXTS))


def embeddings_as_base64() -> None:
    expected = vectors_of(TEXTS)
    sandbox.ignores_base64()
    assert same_vectors(get_Embeddings("by-texts").embed_documents(TEXTS), expected)
    assert sandbox.asked()["encoding_format"] == "base64"


def token_arrays() -> None:
    assert len(get_Embeddings("by-tokens").embed_documents(["one"])) == 1
    assert sandbox.asked()["input"] == [[ord(character) for character in "one"]]


def vision_parts() -> None:
    content = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": PICTURE}}]
    ask(content)
    assert sandbox.asked()["messages"][0]["content"] == content


def errors() -> None:
    sandbox.refuses()
    model = get_ChatOpenAI("sandbox-chat", streaming=False)
    error = failure(lambda: model.invoke(HELLO), openai.BadRequestError)
    assert (error.code, error.param) == ("x", "max_tokens")
    assert "max_tokens too large" in ask(stream=True).text


def left_stream() -> None:
    """Closing alone leaves the connection open: the openai client's stream is part of a cycle."""
    sandbox.stalls()
    answer = get_ChatOpenAI("sandbox-chat").stream(HELLO)
    assert next(answer) is not None
    answer.close()
    del answer
    gc.collect()
    sandbox.wait_until_left()


with ROUTES:
    report(
        {
            "chat": chat,
            "stream": stream,
            "tools": tools,
            "structured output": structured_output,
            "embeddings (floats)": embeddings_as_floats,
            "embeddings (base64)": embeddings_as_base64,
            "token arrays": token_arrays,
            "vision parts": vision_parts,
            "errors": errors,
            "left stream": left_stream,
        }
    )
