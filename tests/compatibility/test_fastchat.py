"""FastChat's openai_api_server as the upstream, asked by the openai client through the proxy."""

from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from tests.support.compatibility import Client
from tests.support.foreign_client import Server, version_of
from tests.support.proxy_process import ProxyFarm, ProxyProcess, free_port
from tests.support.waiting import wait_for

NAME = "fastchat"
ROW = "FastChat, as upstream"
NOT_THERE = {
    "tools": "It ignores tools and answers with text.",
    "structured output": "It ignores response_format and answers with text.",
    "rerank": "It has no such route.",
}
CLIENTS = [Client(ROW, version_of(NAME, "fschat"), NOT_THERE)]
UPSTREAM_KEY = "key-of-fastchat"
HELLO: Any = [{"role": "user", "content": "Hello wörld"}]
ANSWER = "You said: Hello wörld"
TEXTS = ["one", "three", "five", "seven", "nine"]  # more than the four that it passes on at a time
VECTORS = [[float(len(text)), 0.5] for text in TEXTS]


def cell(feature: str) -> pytest.MarkDecorator:
    return pytest.mark.cell(client=ROW, feature=feature)


@pytest.fixture(scope="module")
def ports() -> list[int]:
    return [free_port() for _ in range(3)]


@pytest.fixture
def worker(ports: list[int]) -> str:
    return f"http://127.0.0.1:{ports[2]}"


@pytest.fixture(scope="module")
def proxy(farm: ProxyFarm, ports: list[int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    config = {
        "server": {"workers": 1, "drain_s": 5},
        "token_sources": {"fastchat": {"type": "static", "token": UPSTREAM_KEY}},
        "upstreams": [
            {"name": "fastchat", "base_url": f"http://127.0.0.1:{ports[0]}/v1", "token_source": "fastchat"},
        ],
    }
    folder = tmp_path_factory.mktemp(NAME)
    with Server.of_script(NAME, [*map(str, ports), UPSTREAM_KEY], folder, {"LOGDIR": str(folder)}) as server:
        server.wait_until_answers(f"http://127.0.0.1:{ports[0]}/v1/models", {"Authorization": f"Bearer {UPSTREAM_KEY}"})
        yield farm.proxy(config)


@pytest.fixture
def client(proxy: ProxyProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=proxy.api, api_key="key-of-the-caller", max_retries=0, timeout=10) as client:
        yield client


@cell("chat")
def test_chat_and_the_list_of_models_cross(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="toy", messages=HELLO)
    assert answer.choices[0].message.content == ANSWER
    assert answer.usage is not None
    assert answer.usage.completion_tokens == len(ANSWER)
    assert [model.id for model in client.models.list()] == ["broken", "toy"]
    assert client.models.retrieve("toy").owned_by == "fastchat"  # which FastChat itself has no route for


@cell("stream")
def test_streamed_chat_is_the_same_text_although_frames_lack_members(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(model="toy", messages=HELLO, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == ANSWER
    assert chunks[-1].choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("inputs", "options", "expected"),
    [
        pytest.param(TEXTS, {"encoding_format": "float"}, VECTORS, marks=cell("embeddings (floats)"), id="floats"),
        # The client asks for base64, FastChat answers floats, the proxy packs them.
        pytest.param(TEXTS, {}, VECTORS, marks=cell("embeddings (base64)"), id="base64"),
        pytest.param(
            [[72, 105], [33]],
            {"encoding_format": "float"},
            [[2.0, 0.5], [1.0, 0.5]],
            marks=cell("token arrays"),
            id="tokens",
        ),
    ],
)
def test_embeddings_come_in_the_format_that_was_asked_for(
    client: openai.OpenAI, inputs: Any, options: Any, expected: list[list[float]]
) -> None:
    answer = client.embeddings.create(model="toy", input=inputs, **options)
    assert [item.embedding for item in answer.data] == expected
    assert [item.index for item in answer.data] == list(range(len(inputs)))


@cell("vision parts")
def test_a_picture_reaches_the_worker(client: openai.OpenAI) -> None:
    picture = {"url": "data:image/png;base64,iVBORw0KGgo="}
    content = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": picture}]
    messages: Any = [{"role": "user", "content": content}]
    answer = client.chat.completions.create(model="toy", messages=messages)
    assert answer.choices[0].message.content == "You said: What is it? with 1 picture"


@cell("errors")
def test_its_errors_cross_with_their_words_although_they_have_another_shape(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="allowed now, your model unknown") as caught:
        client.chat.completions.create(model="unknown", messages=HELLO)
    error: Any = caught.value.body
    assert (error["object"], error["code"]) == ("error", 40301)
    with pytest.raises(openai.BadRequestError, match="The model broke"):
        client.chat.completions.create(model="broken", messages=HELLO)


@cell("errors")
def test_an_error_amid_a_stream_crosses_as_it_is_which_clients_take_for_an_end(client: openai.OpenAI) -> None:
    chunks: list[Any] = list(client.chat.completions.create(model="broken", messages=HELLO, stream=True))
    assert chunks[-1].model_extra == {"text": "The model broke.", "error_code": 50001}
    assert chunks[-1].choices is None


@cell("cancel")
def test_a_stream_that_is_closed_ends_at_the_worker_too(client: openai.OpenAI, worker: str) -> None:
    long: Any = [{"role": "user", "content": "Hello" * 100}]
    with client.chat.completions.create(model="toy", messages=long, stream=True) as stream:
        next(chunk for chunk in stream if chunk.choices[0].delta.content)  # the role comes before the worker is asked
    wait_for(lambda: "toy" in httpx.get(f"{worker}/left", trust_env=False).json())
