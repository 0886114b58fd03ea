"""LlamaIndex's classes for OpenAI-like services: a chat model and an embedding model."""

import gc

from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike
from openai import BadRequestError
from pydantic import BaseModel
from trial import A_TRIP, ANSWER, BASE_URL, HELLO, KEY, PICTURE, failure, report, same_vectors, sandbox, vectors_of

QUESTION = [ChatMessage(role="user", content=HELLO)]
TEXTS = ["one", "two", "three"]
LLM = OpenAILike(
    model="sandbox-chat",
    api_base=BASE_URL,
    api_key=KEY,
    is_chat_model=True,
    is_function_calling_model=True,
    should_use_structured_outputs=True,
    max_retries=0,
)


class Trip(BaseModel):
    """A trip to a city."""

    city: str
    days: int


def embedding(**options: object) -> OpenAILikeEmbedding:
    return OpenAILikeEmbedding(model_name="sandbox-embedding", api_base=BASE_URL, api_key=KEY, max_retries=0, **options)


def chat() -> None:
    assert LLM.chat(QUESTION).message.content == ANSWER


def stream() -> None:
    assert "".join(part.delta or "" for part in LLM.stream_chat(QUESTION)) == ANSWER


def tools() -> None:
    def plan(city: str, days: int) -> str:
        """Plan a trip."""
        return f"{days} in {city}"

    answer = LLM.chat_with_tools([FunctionTool.from_defaults(plan)], user_msg=HELLO)
    (call,) = LLM.get_tool_calls_from_response(answer)
    assert (call.tool_name, call.tool_kwargs) == ("plan", A_TRIP)


def structured_output() -> None:
    answer = LLM.as_structured_llm(Trip).chat(QUESTION)
    assert answer.raw == Trip(**A_TRIP), answer
    assert sandbox.asked()["response_format"]["type"] == "json_schema"


def embeddings_as_floats() -> None:
    asks_floats = embedding(additional_kwargs={"encoding_format": "float"})
    assert same_vectors(asks_floats.get_text_embedding_batch(TEXTS), vectors_of(TEXTS))


def embeddings_as_base64() -> None:
    expected = vectors_of(TEXTS)
    assert same_vectors(embedding().get_text_embedding_batch(TEXTS), expected)
    assert sandbox.asked()["encoding_format"] == "base64"
    sandbox.ignores_base64()
    assert same_vectors(embedding().get_text_embedding_batch(TEXTS), expected)


def vision_parts() -> None:
    LLM.chat([ChatMessage(role="user", blocks=[TextBlock(text="What is it?"), ImageBlock(url=PICTURE)])])
    text, picture = sandbox.asked()["messages"][0]["content"]
    assert (text["text"], picture["image_url"]["url"]) == ("What is it?", PICTURE)


def errors() -> None:
    sandbox.refuses()
    error = failure(lambda: LLM.chat(QUESTION), BadRequestError)
    assert (error.code, error.param) == ("x", "max_tokens")


def left_stream() -> None:
    """Closing alone leaves the connection open: the openai client's stream is part of a cycle."""
    sandbox.stalls()
    answer = LLM.stream_chat(QUESTION)
    assert next(answer) is not None
    answer.close()
    del answer
    gc.collect()
    sandbox.wait_until_left()


report(
    {
        "chat": chat,
        "stream": stream,
        "tools": tools,
        "structured output": structured_output,
        "embeddings (floats)": embeddings_as_floats,
        "embeddings (base64)": embeddings_as_base64,
        "vision parts": vision_parts,
        "errors": errors,
        "left stream": left_stream,
    }
)
