"""Dify's model classes for OpenAI-API-compatible providers, as its plugin of that name builds upon them.

They count words with the vocabulary of GPT-2, which tiktoken fetches from the internet; here characters are counted.
"""

import io
import json
from collections.abc import Iterator
from typing import Any

import dify_plugin  # the first: it patches the standard library
import tiktoken
from dify_plugin.entities.model import AIModelEntity, I18nObject, ParameterRule, ParameterType
from dify_plugin.entities.model.llm import LLMResultChunk
from dify_plugin.entities.model.message import (
    ImagePromptMessageContent,
    PromptMessageTool,
    TextPromptMessageContent,
    UserPromptMessage,
)
from dify_plugin.errors.model import InvokeBadRequestError, InvokeError
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

CREDENTIALS = {
    "endpoint_url": BASE_URL,
    "api_key": KEY,
    "mode": "chat",
    "function_calling_type": "tool_call",
    "vision_support": "support",
}
TEXTS = ["one", "two", "three"]


class ChatModel(dify_plugin.OAICompatLargeLanguageModel):
    """As Dify's plugin has it: with the two parameters of structured output."""

    def get_customizable_model_schema(self, model: str, credentials: dict[str, Any]) -> AIModelEntity:
        entity = super().get_customizable_model_schema(model, credentials)
        label = I18nObject(en_US="Response Format")
        response_format = ParameterRule(name="response_format", label=label, type=ParameterType.STRING)
        entity.parameter_rules += [response_format, ParameterRule(name="json_schema", use_template="json_schema")]
        return entity


ChatModel.__module__ = "models.llm.llm"  # where the plugin has it: names in errors are made of this


class Characters:
    """Counts each character as one token."""

    def encode(self, text: str) -> list[int]:
        return [ord(character) for character in text]


tiktoken.encoding_for_model = lambda _: Characters()


def ask(content: Any = HELLO, **options: Any) -> Iterator[LLMResultChunk]:
    """Each piece of the answer; all of it is one piece where it is not streamed."""
    model = ChatModel([])  # a new one each time, as after an error it cannot be used again
    return model.invoke("sandbox-chat", CREDENTIALS, [UserPromptMessage(content=content)], **options)


def text_of(chunks: Iterator[LLMResultChunk]) -> str:
    return "".join(chunk.delta.message.content for chunk in chunks)


def chat() -> None:
    for model in (ChatModel, dify_plugin.OAICompatEmbeddingModel, dify_plugin.OAICompatRerankModel):
        model([]).validate_credentials("sandbox-chat", CREDENTIALS)  # as when a user adds a model
    assert text_of(ask(stream=False)) == ANSWER


def stream() -> None:
    ChatModel([]).validate_credentials("sandbox-chat", {**CREDENTIALS, "stream_mode_auth": "use"})
    chunks = list(ask())
    assert text_of(iter(chunks)) == ANSWER
    assert chunks[-1].delta.finish_reason == "stop"


def tools() -> None:
    plan = PromptMessageTool(name="plan", description="Plan a trip.", parameters=TRIP)
    for stream in (False, True):
        (call,) = [call for chunk in ask(tools=[plan], stream=stream) for call in chunk.delta.message.tool_calls]
        assert (call.function.name, json.loads(call.function.arguments)) == ("plan", A_TRIP)


def structured_output() -> None:
    schema = json.dumps({"name": "trip", "schema": TRIP, "strict": True})
    answer = text_of(ask(model_parameters={"response_format": "json_schema", "json_schema": schema}))
    assert json.loads(answer) == A_TRIP


def embeddings() -> None:
    answer = dify_plugin.OAICompatEmbeddingModel([]).invoke("sandbox-embedding", CREDENTIALS, TEXTS)
    assert same_vectors(answer.embeddings, vectors_of(TEXTS))
    assert sandbox.asked()["encoding_format"] == "float"


def rerank() -> None:
    answer = dify_plugin.OAICompatRerankModel([]).invoke(
        "sandbox-rerank", CREDENTIALS, "red house", ["green tree", "red house", "red tree"], top_n=2
    )
    assert [(document.index, document.text) for document in answer.docs] == [(1, "red house"), (2, "red tree")]


def vision_parts() -> None:
    picture = ImagePromptMessageContent(format="png", base64_data=PICTURE.partition(",")[2], mime_type="image/png")
    list(ask([TextPromptMessageContent(data="What is it?"), picture]))
    text, image = sandbox.asked()["messages"][0]["content"]
    assert (text["text"], image["image_url"]["url"]) == ("What is it?", PICTURE)


def errors() -> None:
    sandbox.refuses()
    for stream in (False, True):
        assert "max_tokens too large" in str(failure(lambda stream=stream: list(ask(stream=stream)), InvokeError))
    embedding, rerank = dify_plugin.OAICompatEmbeddingModel([]), dify_plugin.OAICompatRerankModel([])
    failure(lambda: embedding.invoke("sandbox-embedding", CREDENTIALS, TEXTS), InvokeBadRequestError)
    assert "400" in str(failure(lambda: rerank.invoke("sandbox-rerank", CREDENTIALS, "a", ["b"]), InvokeError))
    sandbox.fails(kind="cut", frames=4)
    assert "broke off" in str(failure(lambda: list(ask()), ValueError))


def cancel() -> None:
    sandbox.stalls()
    answer = ask()
    assert next(answer).delta.message.content
    answer.close()
    sandbox.wait_until_left()


def speech() -> None:
    """No feature of the matrix, but two more of Dify's model types."""
    assert b"".join(
        dify_plugin.OAICompatText2SpeechModel([]).invoke("sandbox-tts", "tenant", CREDENTIALS, "Hello", "alloy")
    )
    assert dify_plugin.OAICompatSpeech2TextModel([]).invoke("sandbox-stt", CREDENTIALS, io.BytesIO(b"RIFF"))


report(
    {
        "chat": chat,
        "stream": stream,
        "tools": tools,
        "structured output": structured_output,
        "embeddings (floats)": embeddings,
        "rerank": rerank,
        "vision parts": vision_parts,
        "errors": errors,
        "cancel": cancel,
        "speech": speech,
    }
)
