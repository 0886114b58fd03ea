"""langchain-openai, with the base URL in both of the forms that people type."""

from typing import Any

import pytest
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import SecretStr

from tests.support.proxy_process import ProxyProcess

KEY = SecretStr("any")


@pytest.fixture(params=["/agent/api/llm_proxy/v1", "/agent/api/llm_proxy"], ids=["with /v1", "without /v1"])
def base_url(request: pytest.FixtureRequest, proxy: ProxyProcess) -> str:
    return proxy.url + str(request.param)


def chat(base_url: str, **options: Any) -> ChatOpenAI:
    return ChatOpenAI(base_url=base_url, api_key=KEY, model="sandbox-chat", max_retries=0, **options)


def test_invoke_and_stream_give_the_same_text(base_url: str) -> None:
    model = chat(base_url)
    assert "Hello" in str(model.invoke("Hello").content)
    assert "".join(str(chunk.content) for chunk in model.stream("Hello")) == model.invoke("Hello").content


def test_bound_tools_are_called(base_url: str) -> None:
    @tool
    def weather(city: str) -> str:
        """The weather of a city."""
        return city

    answer = chat(base_url).bind_tools([weather]).invoke("What is the weather?")
    assert [call["name"] for call in answer.tool_calls] == ["weather"]


def test_embeddings_of_documents_and_of_a_query(base_url: str) -> None:
    embeddings = OpenAIEmbeddings(
        base_url=base_url, api_key=KEY, model="sandbox-embedding", check_embedding_ctx_length=False, max_retries=0
    )
    documents = embeddings.embed_documents(["one", "two"])
    assert [len(vector) for vector in documents] == [8, 8]
    assert embeddings.embed_query("one") == pytest.approx(documents[0])
