"""RAGFlow as a caller, replayed: every type of model, the addresses of each release, and models added from cold."""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.support.compatibility import Client
from tests.support.proxy_process import ProxyFarm, ProxyProcess
from tests.support.ragflow import RELEASES, Ragflow, Release, tries_again
from tests.support.sandbox_client import SandboxClient

NAME = "RAGFlow (its calls, replayed)"
NOT_THERE = {
    "structured output": "It writes the schema into the prompt and sends no response_format.",
    "embeddings (base64)": "It asks for floats, always.",
    "token arrays": "It sends texts only.",
}
CLIENTS = [Client(NAME, "0.27", NOT_THERE)]
MODELS = {
    "gpt-4o": "sandbox-chat",
    "qwen3-32b": "sandbox-chat",
    "bge-m3": "sandbox-embedding",
    "bge-reranker-v2-m3": "sandbox-rerank",
    "whisper-1": "whisper",
    "tts-1": "tts",
}
PREFIX = "/agent/api/llm_proxy"
TYPED = (f"{PREFIX}/v1", f"{PREFIX}/v1/", PREFIX, "/v1", "/v1/", "")
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
)
TOOLS: Any = [{"type": "function", "function": {"name": "search", "parameters": {"type": "object", "properties": {}}}}]


def cell(feature: str) -> pytest.MarkDecorator:
    return pytest.mark.cell(client=NAME, feature=feature)


def config_of(sandbox: SandboxClient, worker_class: str = "gevent") -> dict[str, Any]:
    return sandbox.config(server={"worker_class": worker_class}, upstream={"models": MODELS})


@pytest.fixture
def proxy(farm: ProxyFarm, sandbox: SandboxClient) -> ProxyProcess:
    config = config_of(sandbox)
    strict = {"name": "strict", "models": {"strict-embed": "sandbox-embedding"}, "strip_fields": ["drop_params"]}
    config["upstreams"].append({**config["upstreams"][0], **strict})
    return farm.proxy(config)


@pytest.fixture
def ragflow(proxy: ProxyProcess) -> Ragflow:
    return Ragflow(proxy.api)


def last_body(sandbox: SandboxClient) -> dict[str, Any]:
    return dict(json.loads(sandbox.last()["body"]))


@cell("chat")
@pytest.mark.parametrize("typed", TYPED)
@pytest.mark.parametrize("release", RELEASES)
def test_every_address_that_a_release_makes_of_a_base_url_is_answered(
    proxy: ProxyProcess, release: Release, typed: str
) -> None:
    ragflow = Ragflow(proxy.url + typed, release)
    assert ragflow.chat(model="gpt-4o", messages=[{"role": "user", "content": "Hi"}]).choices
    assert ragflow.rerank("bge-reranker-v2-m3", "a b", ["b"])
    assert ragflow.list_models()
    if typed == PREFIX and release in ("0.23", "0.26"):
        # These put v1 in the place of the prefix's last segment: docs/recipes/ragflow.md warns of it.
        assert ragflow.joined_base == f"{proxy.url}/agent/api/v1"
        with pytest.raises(openai.NotFoundError):
            ragflow.embed("bge-m3", ["text"])
    else:
        assert len(ragflow.embed("bge-m3", ["text"])[0]) == 8
        assert ragflow.describe("gpt-4o", PIXEL)


@cell("cancel")
@pytest.mark.parametrize(("worker_class", "release"), [("gevent", "0.27"), ("gthread", "1.0")])
def test_models_are_added_to_a_proxy_that_has_just_started_and_has_no_token(
    own_sandbox: SandboxClient, tmp_path: Path, worker_class: str, release: Release
) -> None:
    own_sandbox.faults(upstream=[{"kind": "stall", "frames": 3}])  # whoever reads on, waits for good
    proxy = ProxyProcess.start(config_of(own_sandbox, worker_class), tmp_path)
    try:
        assert own_sandbox.state()["requests"] == own_sandbox.state()["fetches"] == 0
        Ragflow(proxy.api, release).add_models("gpt-4o", "bge-m3", "bge-reranker-v2-m3")
        own_sandbox.wait_until(lambda state: state["open"] == 0)  # the stream that was left at its first text too
        requests = [(entry["path"], entry["end"]) for entry in own_sandbox.log()]
    finally:
        proxy.stop()
    assert requests == [
        ("/v1/models", "done"),
        ("/v1/chat/completions", "caller_gone"),
        ("/v1/embeddings", "done"),
        ("/v1/rerank", "done"),
    ]
    assert own_sandbox.state()["fetches"] == 1
    assert "ERROR" not in proxy.log()
    assert "WARNING" not in proxy.log()


def test_listed_names_tell_their_types_and_keep_what_the_upstream_says_of_them(ragflow: Ragflow) -> None:
    listed = {model["id"]: model for model in ragflow.list_models()}
    types = {
        "gpt-4o": "image2text",
        "qwen3-32b": "chat",
        "bge-m3": "embedding",
        "bge-reranker-v2-m3": "rerank",
        "whisper-1": "speech2text",
        "tts-1": "tts",
    }
    assert listed.keys() >= types.keys()
    for release in ("0.27", "1.0"):
        assert {model: Ragflow("", release).type_of(model) for model in types} == types


@cell("stream")
def test_chat_takes_the_options_that_it_sends(ragflow: Ragflow, sandbox: SandboxClient) -> None:
    chunks = ragflow.chat(
        model="qwen3-32b",
        messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}],
        stream=True,
        stream_options={"include_usage": True},
        temperature=0.1,
        top_p=0.3,
        presence_penalty=0.4,
        frequency_penalty=0.7,
        stop=["##"],
        extra_body={"enable_thinking": False},
    )
    assert "Hello" in "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert chunks[-1].usage.total_tokens > 0
    assert last_body(sandbox)["enable_thinking"] is False


@cell("tools")
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_tool_is_called_and_its_result_answered(ragflow: Ragflow, streamed: bool) -> None:
    messages: list[Any] = [{"role": "user", "content": "Hello"}]
    asked: dict[str, Any] = {"model": "qwen3-32b", "tools": TOOLS, "tool_choice": "auto", "stream": streamed}
    answer = ragflow.chat(messages=messages, **asked)
    if streamed:
        pieces = [piece for chunk in answer for piece in chunk.choices[0].delta.tool_calls or []]
        name, arguments = pieces[0].function.name, "".join(piece.function.arguments or "" for piece in pieces)
        call_id = pieces[0].id
    else:
        call = answer.choices[0].message.tool_calls[0]
        name, arguments, call_id = call.function.name, call.function.arguments, call.id
    assert name == "search"
    assert isinstance(json.loads(arguments), dict)
    # With a member "index" in the call, which OpenAI's own requests do not have.
    function = {"name": name, "arguments": arguments}
    messages += [
        {"role": "assistant", "tool_calls": [{"index": 0, "id": call_id, "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": call_id, "content": "nothing found"},
    ]
    assert ragflow.chat(messages=messages, model="qwen3-32b", tools=TOOLS).choices[0].message.content


@cell("embeddings (floats)")
def test_documents_are_embedded_in_batches_and_in_order(ragflow: Ragflow, sandbox: SandboxClient) -> None:
    texts = [f"chunk {number}" for number in range(40)]
    vectors = ragflow.embed("bge-m3", texts)
    assert [len(json.loads(entry["body"])["input"]) for entry in sandbox.log()] == [16, 16, 8]
    assert last_body(sandbox)["drop_params"] is True
    assert vectors[39] == pytest.approx(ragflow.embed("bge-m3", ["chunk 39"])[0])


def test_member_that_only_litellm_knows_is_left_out_where_the_config_says_so(
    ragflow: Ragflow, sandbox: SandboxClient
) -> None:
    assert ragflow.embed("strict-embed", ["text"])
    assert last_body(sandbox).keys() == {"model", "input", "encoding_format"}


@cell("rerank")
def test_scores_come_in_the_order_of_the_texts(ragflow: Ragflow) -> None:
    assert ragflow.rerank("bge-reranker-v2-m3", "a b", ["b", "a b"]) == [0.5, 1.0]


@cell("vision parts")
def test_picture_crosses_as_it_is(ragflow: Ragflow, sandbox: SandboxClient) -> None:
    assert "picture" in ragflow.describe("gpt-4o", PIXEL)
    assert last_body(sandbox)["messages"][0]["content"][1] == {"type": "image_url", "image_url": {"url": PIXEL}}


def test_speech_comes_as_bytes(ragflow: Ragflow, sandbox: SandboxClient) -> None:
    sound = ragflow.speak("tts-1", "Hello~ RAGFlower!")
    assert sound.startswith(b"RIFF")
    assert len(sound) == int.from_bytes(sound[4:8], "little") + 8
    assert last_body(sandbox)["model"] == "tts"


def test_recording_crosses_whole(ragflow: Ragflow, sandbox: SandboxClient) -> None:
    recording = io.BytesIO(b"RIFF" + bytes(range(256)) * 4000)
    recording.name = "recording.wav"
    heard = ragflow.transcribe("whisper-1", recording)
    body = sandbox.last()["body"]
    assert recording.getvalue() in body
    assert hashlib.sha256(body).hexdigest() in heard


@cell("errors")
@pytest.mark.parametrize("release", RELEASES)
def test_cut_stream_is_not_asked_for_again_and_a_dead_upstream_is(
    proxy: ProxyProcess, sandbox: SandboxClient, release: Release
) -> None:
    ragflow = Ragflow(proxy.api, release)
    asked: Any = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]}
    sandbox.faults(upstream=[{"kind": "stream_reset"}])
    with pytest.raises(openai.APIError) as cut:
        ragflow.chat(**asked, stream=True)
    sandbox.faults(upstream=[{"kind": "reset"}])
    with pytest.raises(openai.APIStatusError) as dead:
        ragflow.chat(**asked)
    assert not tries_again(cut.value, release)
    assert str(dead.value).startswith("Error code: 502 - ")  # tests/contract/test_ragflow_retries.py tries every text
    assert tries_again(dead.value, release)
