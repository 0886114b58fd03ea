"""langchain-tests' integration suites, whole, with langchain-openai at the proxy.

They need no clever model: the sandbox calls the tool that it is forced to and follows the schema that it is given. What
a suite fetches from the internet is given to it here. One test skips itself: test_stream_time wants recorded answers.
"""

from collections.abc import AsyncIterator, Mapping
from types import SimpleNamespace
from typing import Any

import httpx
import openai
import pytest
from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from langchain_tests.integration_tests import ChatModelIntegrationTests, EmbeddingsIntegrationTests

from tests.support.proxy_process import ProxyProcess


@pytest.fixture
def benchmark() -> None:
    """Of pytest-benchmark, for the test that skips itself."""


@pytest.fixture
def vcr() -> None:
    """Of pytest-recording, for the same test."""


class AtTheProxy:
    """Where the clients under test ask; langchain-openai's own async client would outlive the event loop of a test."""

    address: Mapping[str, Any]

    @pytest.fixture(autouse=True)
    async def _address(self, proxy: ProxyProcess) -> AsyncIterator[None]:
        async with openai.DefaultAsyncHttpxClient() as client:
            self.address = {"base_url": proxy.api, "api_key": "any", "max_retries": 0, "http_async_client": client}
            yield


@pytest.mark.filterwarnings("ignore::UserWarning")  # langchain-openai's own, about the schemas and files of the suite
class TestChatOpenAI(AtTheProxy, ChatModelIntegrationTests):
    """Everything that ChatOpenAI has is switched on."""

    supports_json_mode = True
    supports_image_inputs = True
    supports_image_urls = True
    supports_pdf_inputs = True
    supports_audio_inputs = True
    supports_image_tool_message = True
    supports_pdf_tool_message = True
    supports_anthropic_inputs = True
    model_override_value = "another-model"

    @pytest.fixture(autouse=True)
    def _files(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LANGCHAIN_TESTS_USER_AGENT", "tests")
        file = httpx.Response(200, content=b"a picture, a sound or a page")
        internet = SimpleNamespace(get=lambda *_, **__: file)
        monkeypatch.setattr("langchain_tests.integration_tests.chat_models.httpx", internet)

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "sandbox-chat", "stream_usage": True, **self.address}


class TestOpenAIEmbeddings(AtTheProxy, EmbeddingsIntegrationTests):
    """Texts go up as they are: without check_embedding_ctx_length=False they go as token arrays of OpenAI's models."""

    @property
    def embeddings_class(self) -> type[Embeddings]:
        return OpenAIEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": "sandbox-embedding", "check_embedding_ctx_length": False, **self.address}
