import pytest

from proxy.doctor.model_choice import choose, is_chat, is_embedding
from proxy.routing import ModelMap


@pytest.mark.parametrize(
    "name",
    ["text-embedding-3-large", "bge-m3", "BAAI/bge-large-zh", "e5-mistral", "gte-Qwen2", "nomic-embed-text", "m3e"],
)
def test_embedding_models_are_known_by_name(name: str) -> None:
    assert is_embedding(name)
    assert not is_chat(name)


@pytest.mark.parametrize("name", ["gpt-4o-240806-deploy-gs", "Qwen/Qwen3-32B", "claude-sonnet-4", "deepseek-e5x", "m"])
def test_others_pass_for_chat_models(name: str) -> None:
    assert is_chat(name)
    assert not is_embedding(name)


@pytest.mark.parametrize("name", ["bge-reranker-v2", "whisper-1", "tts-1", "gpt-4o-audio", "dall-e-3", "gpt-image-1"])
def test_models_of_other_kinds_are_neither(name: str) -> None:
    assert not is_chat(name)
    assert not is_embedding(name)


@pytest.mark.parametrize(
    ("models", "wanted", "listed", "chosen"),
    [
        pytest.param({"gpt": "deploy-1", "*": "*"}, None, ["other"], "deploy-1", id="config-first"),
        pytest.param({"*": "*"}, None, ["bge-m3", "chat-1"], "chat-1", id="the-list-behind-a-wildcard"),
        pytest.param({"*": "only-1"}, None, [], "only-1", id="wildcard-with-one-target"),
        pytest.param({"emb": "bge-m3"}, None, ["chat-1"], None, id="list-that-no-caller-reaches"),
        pytest.param({"my-*": "*"}, None, ["a", "my-b"], "my-b", id="list-that-callers-reach-in-part"),
        pytest.param({"*": "*"}, None, [], None, id="nothing-known"),
        pytest.param({"gpt": "deploy-1"}, "gpt", [], "deploy-1", id="wanted-by-the-callers-name"),
        pytest.param({"*": "*"}, "bge-m3", [], "bge-m3", id="wanted-whatever-its-kind"),
        pytest.param({"gpt": "deploy-1"}, "deploy-1", ["deploy-1"], None, id="wanted-and-not-served"),
    ],
)
def test_model_is_chosen(models: dict[str, str], wanted: str | None, listed: list[str], chosen: str | None) -> None:
    assert choose(ModelMap("llm", models), wanted, listed, is_chat) == chosen
