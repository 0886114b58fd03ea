"""Dify's model classes for OpenAI-API-compatible providers, in an environment of their own."""

import pytest

from tests.support.compatibility import Client
from tests.support.foreign_client import Results, run_client, version_of
from tests.support.proxy_process import ProxyFarm
from tests.support.sandbox_client import SandboxClient

NAME = "dify"
NOT_THERE = {
    "embeddings (base64)": "It asks for floats, always.",
    "token arrays": "It sends texts only.",
}
CLIENTS = [Client("Dify (its plugins' model classes)", version_of(NAME, "dify-plugin"), NOT_THERE)]


@pytest.fixture(scope="module")
def results(farm: ProxyFarm, _sandbox_of_session: SandboxClient, tmp_path_factory: pytest.TempPathFactory) -> Results:
    return run_client(NAME, farm, _sandbox_of_session, tmp_path_factory.mktemp(NAME))


@pytest.mark.parametrize("feature", CLIENTS[0].cells())
def test_feature_works_through_the_proxy(results: Results, feature: str) -> None:
    assert results[feature]["passed"], results[feature]["why"]


def test_speech_goes_both_ways(results: Results) -> None:
    assert results["speech"]["passed"], results["speech"]["why"]
