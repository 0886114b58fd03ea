"""langchain-openai, with the base URL in both of the forms that people type; docs/recipes/langchain.md is run too."""

import json
from importlib.metadata import version
from typing import Any

import openai
import pytest
import tiktoken
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, SecretStr

from tests.support.compatibility import Client
from tests.support.guarded_proxy import guarded_config
from tests.support.proxy_process import ProxyFarm, ProxyProcess
from tests.support.recipe import code_of
from tests.support.sandbox_client import SandboxClient

NAME = "langchain-openai"
CLIENTS = [
    Client(
        NAME,
        version("langchain-openai"),
        {"rerank": "The client has no such call."},
    )
]
KEY = SecretStr("any")


class Trip(BaseModel):
    """A trip."""

    city: str
    days: int


@pytest.fixture(params=["/agent/api/llm_proxy/v1", "/agent/api/llm_proxy"], ids=["with /v1", "without /v1"])
def base_url(request: pytest.FixtureRequest, proxy: ProxyProcess) -> str:
    return proxy.url + str(request.param)


def chat(base_url: str, **options: Any) -> ChatOpenAI:
    return ChatOpenAI(**{"base_url": base_url, "api_key": KEY, "model": "sandbox-chat", "max_retries": 0, **options})


def embeddings(base_url: str, **options: Any) -> OpenAIEmbeddings:
    return OpenAIEmbeddings(base_url=base_url, api_key=KEY, model="sandbox-embedding", max_retries=0, **options)


@pytest.mark.cell(client=NAME, feature="chat")
def test_invoke_answers(base_url: str) -> None:
    assert "Hello" in str(chat(base_url).invoke("Hello").content)


@pytest.mark.cell(client=NAME, feature="stream")
def test_stream_is_the_same_text(base_url: str) -> None:
    model = chat(base_url)
    assert "".join(str(chunk.content) for chunk in model.stream("Hello")) == model.invoke("Hello").content


def test_the_responses_api_says_the_same_whole_and_streamed(proxy: ProxyProcess, sandbox: SandboxClient) -> None:
    model = chat(proxy.api, use_responses_api=True)
    whole = model.invoke("Hello").text
    assert "".join(chunk.text for chunk in model.stream("Hello")) == whole == "You said: Hello"
    assert {entry["path"] for entry in sandbox.log()} == {"/v1/responses"}


@pytest.mark.cell(client=NAME, feature="tools")
def test_bound_tools_are_called(base_url: str) -> None:
    @tool
    def weather(city: str) -> str:
        """The weather of a city."""
        return city

    answer = chat(base_url).bind_tools([weather]).invoke("Berlin")
    assert [(call["name"], call["args"]) for call in answer.tool_calls] == [("weather", {"city": "You said: Berlin"})]


@pytest.mark.cell(client=NAME, feature="structured output")
@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
# langchain-openai's own, about the parsed member of an answer that it made itself.
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")
def test_structured_output_is_the_model_that_was_asked_for(proxy: ProxyProcess, method: Any) -> None:
    answer = chat(proxy.api).with_structured_output(Trip, method=method).invoke("3 days")
    assert answer == Trip(city="You said: 3 days", days=3)


@pytest.mark.cell(client=NAME, feature="embeddings (base64)")
def test_embeddings_of_documents_and_of_a_query(base_url: str, sandbox: SandboxClient) -> None:
    model = embeddings(base_url, check_embedding_ctx_length=False)
    documents = model.embed_documents(["one", "two"])
    assert json.loads(sandbox.last()["body"])["encoding_format"] == "base64"
    assert [len(vector) for vector in documents] == [8, 8]
    assert model.embed_query("one") == pytest.approx(documents[0])


@pytest.mark.cell(client=NAME, feature="embeddings (floats)")
def test_embeddings_are_the_same_as_floats(proxy: ProxyProcess, sandbox: SandboxClient) -> None:
    packed = embeddings(proxy.api, check_embedding_ctx_length=False).embed_query("one")
    as_floats = {"encoding_format": "float"}
    floats = embeddings(proxy.api, check_embedding_ctx_length=False, model_kwargs=as_floats).embed_query("one")
    assert json.loads(sandbox.last()["body"])["encoding_format"] == "float"
    assert floats == pytest.approx(packed, abs=1e-6)


@pytest.mark.cell(client=NAME, feature="token arrays")
def test_texts_go_up_as_token_arrays_unless_told_otherwise(
    proxy: ProxyProcess, sandbox: SandboxClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A real encoding, though of bytes alone: OpenAI's own are on the internet.
    ranks = {bytes([number]): number for number in range(256)}
    encoding = tiktoken.Encoding("bytes", pat_str=r"(?s).", mergeable_ranks=ranks, special_tokens={})
    monkeypatch.setattr(tiktoken, "get_encoding", lambda _: encoding)
    vectors = embeddings(proxy.api).embed_documents(["one", "é"])
    assert [len(vector) for vector in vectors] == [8, 8]
    assert json.loads(sandbox.last()["body"])["input"] == [list(b"one"), list("é".encode())]


@pytest.mark.cell(client=NAME, feature="vision parts")
def test_a_picture_goes_up_as_it_is(proxy: ProxyProcess, sandbox: SandboxClient) -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"}}
    content: Any = [{"type": "text", "text": "What is it?"}, picture]
    chat(proxy.api).invoke([HumanMessage(content=content)])
    assert json.loads(sandbox.last()["body"])["messages"][0]["content"] == content


@pytest.mark.cell(client=NAME, feature="errors")
def test_errors_are_those_of_the_openai_client(farm: ProxyFarm, sandbox: SandboxClient) -> None:
    guarded = farm.proxy(guarded_config(sandbox, "gevent")).url
    with pytest.raises(openai.AuthenticationError):
        chat(guarded).invoke("Hello")
    with pytest.raises(openai.NotFoundError):
        chat(guarded, api_key=SecretStr("key-all"), model="unknown").invoke("Hello")


@pytest.mark.cell(client=NAME, feature="cancel")
def test_a_stream_that_is_closed_is_gone_upstream_too(proxy: ProxyProcess, sandbox: SandboxClient) -> None:
    slow = {"sandbox_frames": 10_000, "sandbox_interval_ms": 20}
    stream: Any = chat(proxy.api, extra_body=slow).stream("Hello")
    next(stream)
    stream.close()
    sandbox.wait_until(lambda state: state["open"] == 0)
    assert sandbox.last()["end"] == "caller_gone"


def test_the_recipe_runs_as_it_is_written(proxy: ProxyProcess) -> None:
    (code,) = code_of("langchain", "python")
    names: dict[str, Any] = {}
    exec(code.replace("http://127.0.0.1:5002/agent/api/llm_proxy/v1", proxy.api), names)
    assert "Hello" in str(names["answer"].content)
    assert names["trip"].days == 3
    assert [len(vector) for vector in names["vectors"]] == [8, 8]
