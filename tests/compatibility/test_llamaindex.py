"""LlamaIndex's own code for OpenAI-like services, in an environment of its own."""

import pytest

from tests.support.compatibility import Client
from tests.support.foreign_client import Results, run_client, version_of
from tests.support.proxy_process import ProxyFarm
from tests.support.sandbox_client import SandboxClient

NAME = "llamaindex"
NOT_THERE = {
    "token arrays": "It sends texts only.",
    "rerank": "It has no reranker for OpenAI-like services.",
    "cancel": "A stream that it leaves stays open, and the upstream works on, until Python's collector finds it.",
}
CLIENTS = [Client("LlamaIndex", version_of(NAME, "llama-index-core"), NOT_THERE)]


@pytest.fixture(scope="module")
def results(farm: ProxyFarm, _sandbox_of_session: SandboxClient, tmp_path_factory: pytest.TempPathFactory) -> Results:
    return run_client(NAME, farm, _sandbox_of_session, tmp_path_factory.mktemp(NAME))


@pytest.mark.parametrize("feature", CLIENTS[0].cells())
def test_feature_works_through_the_proxy(results: Results, feature: str) -> None:
    assert results[feature]["passed"], results[feature]["why"]


def test_a_stream_that_was_left_is_gone_at_the_model_too_once_it_is_collected(results: Results) -> None:
    assert results["left stream"]["passed"], results["left stream"]["why"]
