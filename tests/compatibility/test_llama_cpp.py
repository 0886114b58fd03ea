"""A real inference server as upstream: llama.cpp with a tiny model. The proxy fetches the API key that it demands.

A caller that leaves stops a stream's generation only: llama.cpp itself finishes whole answers for nobody, though the
proxy closes its connection (test_streams).
"""

import json
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.support import llama_cpp
from tests.support.compatibility import Client
from tests.support.llama_cpp import LlamaCpp
from tests.support.proxy_process import ProxyFarm
from tests.support.token_issuer import Issuer, answer_of
from tests.support.waiting import wait_for

NAME = "llama.cpp, as upstream"
NOT_TRIED = "Not tried: the tests make a model of their own, which knows neither tools nor pictures nor ranks."
NOT_THERE = dict.fromkeys(("tools", "rerank", "vision parts"), NOT_TRIED)
CLIENTS = [Client(NAME, version("xllamacpp"), NOT_THERE)]
HELLO: Any = [{"role": "user", "content": "Hello"}]
ENDLESS = -1  # llama.cpp's word for no limit of max_tokens


def cell(feature: str) -> pytest.MarkDecorator:
    return pytest.mark.cell(client=NAME, feature=feature)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaCpp]:
    with LlamaCpp(tmp_path_factory.mktemp("llama")) as llama:
        yield llama


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with Issuer() as issuer:
        issuer.answer({"access_token": llama_cpp.API_KEY, "expires_in": 300})
        yield issuer


@pytest.fixture(scope="module")
def api(farm: ProxyFarm, llama: LlamaCpp, issuer: Issuer) -> str:
    return farm.proxy(config_of(llama, issuer)).api


@pytest.fixture
def client(api: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=api, api_key="any", max_retries=0) as client:
        yield client


def config_of(llama: LlamaCpp, issuer: Issuer) -> dict[str, Any]:
    """One server as two upstreams: by its own name, and by an alias under which large inputs are split."""
    upstream = {"base_url": f"{llama.url}/v1", "token_source": "keys"}
    return {
        "server": {"workers": 1, "drain_s": 5},
        "token_sources": {"keys": {"type": "http_json", "url": issuer.url, "json": {"app": "llama"}}},
        "upstreams": [
            {"name": "llama", "models": {llama_cpp.MODEL: llama_cpp.MODEL}, **upstream},
            {"name": "split", "models": {"split": llama_cpp.MODEL}, "embeddings": {"max_batch": 2}, **upstream},
        ],
    }


@cell("stream")
def test_tokens_stream_one_by_one_and_end_with_usage_and_done(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="tiny", messages=HELLO, max_tokens=12, stream=True, stream_options={"include_usage": True}
        )
    )
    words = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert len(words) == 12
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 12


def test_stream_is_the_servers_own_bytes(client: openai.OpenAI) -> None:
    body = {"model": "tiny", "messages": HELLO, "max_tokens": 3, "stream": True}
    with client.chat.completions.with_streaming_response.create(**body) as answer:  # type: ignore[call-overload]
        frames = b"".join(answer.iter_bytes()).split(b"\n\n")
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert frames[-2:] == [b"data: [DONE]", b""]
    last = json.loads(frames[-3].removeprefix(b"data: "))
    assert last["timings"]["predicted_n"] == 3  # a member of llama.cpp's own


@cell("chat")
def test_streamed_and_whole_answers_are_the_same_text(client: openai.OpenAI) -> None:
    question: Any = {"model": "tiny", "messages": HELLO, "max_tokens": 20, "temperature": 0}
    whole = client.chat.completions.create(**question).choices[0]
    streamed = [
        chunk.choices[0].delta.content or "" for chunk in client.chat.completions.create(**question, stream=True)
    ]
    assert whole.message.content == "".join(streamed)
    assert whole.finish_reason == "length"


@cell("structured output")
def test_structured_output_follows_its_schema(client: openai.OpenAI) -> None:
    properties = {"city": {"enum": ["Oslo", "Rome"]}, "sunny": {"type": "boolean"}}
    schema = {"type": "object", "properties": properties, "required": ["city", "sunny"], "additionalProperties": False}
    answer = client.chat.completions.create(
        model="tiny",
        messages=HELLO,
        max_tokens=200,
        response_format={"type": "json_schema", "json_schema": {"name": "weather", "strict": True, "schema": schema}},
    )
    weather = json.loads(answer.choices[0].message.content or "")
    assert weather["city"] in ("Oslo", "Rome")
    assert weather["sunny"] in (True, False)


def test_completions_and_responses_answer_whole_and_streamed(client: openai.OpenAI) -> None:
    assert client.completions.create(model="tiny", prompt="Hello", max_tokens=3).choices[0].text
    pieces = list(client.completions.create(model="tiny", prompt="Hello", max_tokens=3, stream=True))
    assert len([piece for piece in pieces if piece.choices[0].text]) == 3
    assert client.responses.create(model="tiny", input="Hello", max_output_tokens=3).output_text
    events = [
        event.type for event in client.responses.create(model="tiny", input="Hello", max_output_tokens=3, stream=True)
    ]
    assert events[0] == "response.created"
    assert events.count("response.output_text.delta") == 3
    assert events[-1] == "response.completed"


@pytest.mark.parametrize(
    "inputs",
    [
        pytest.param("one", marks=cell("embeddings (floats)")),
        pytest.param(["one", "two"], marks=cell("embeddings (base64)")),
        pytest.param([72, 101], marks=cell("token arrays")),
        pytest.param([[72], [101, 102]], marks=cell("token arrays")),
    ],
    ids=repr,
)
def test_embeddings_are_the_same_as_floats_and_as_base64(client: openai.OpenAI, inputs: Any) -> None:
    floats = client.embeddings.create(model="tiny", input=inputs, encoding_format="float").data
    packed = client.embeddings.create(model="tiny", input=inputs).data  # the client asks for base64 and unpacks it
    assert len(floats) == len(packed)
    for one, other in zip(floats, packed, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-5)


def test_split_input_comes_back_in_order(client: openai.OpenAI) -> None:
    texts = [f"text {number}" for number in range(7)]
    split = client.embeddings.create(model="split", input=texts)
    assert [item.index for item in split.data] == list(range(7))
    for text, item in zip(texts, split.data, strict=True):
        alone = client.embeddings.create(model="tiny", input=text).data[0].embedding
        assert item.embedding == pytest.approx(alone, abs=1e-5)


def test_models_are_listed_with_the_servers_own_members(client: openai.OpenAI) -> None:
    models = {model.id: model.model_dump() for model in client.models.list()}
    assert models.keys() == {"tiny", "split"}
    assert models["tiny"]["meta"]["n_ctx_train"] == 65_536


@cell("errors")
def test_error_of_the_server_crosses_as_it_is(client: openai.OpenAI) -> None:
    too_long: Any = [{"role": "user", "content": "x" * 2 * llama_cpp.SLOT_CONTEXT}]
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="tiny", messages=too_long)
    body: Any = caught.value.body
    assert body["type"] == "exceed_context_size_error"
    assert body["n_ctx"] == llama_cpp.SLOT_CONTEXT


@cell("cancel")
def test_caller_that_leaves_a_stream_stops_the_generation(client: openai.OpenAI, llama: LlamaCpp) -> None:
    stream = client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=ENDLESS, stream=True)
    next(stream)
    assert llama.busy_slots() == 1
    stream.close()
    wait_for(lambda: llama.busy_slots() == 0)


def test_two_callers_are_answered_side_by_side(client: openai.OpenAI, llama: LlamaCpp) -> None:
    ask: Any = {"model": "tiny", "messages": HELLO, "max_tokens": ENDLESS, "stream": True}
    with client.chat.completions.create(**ask) as one, client.chat.completions.create(**ask) as other:
        for _ in range(20):
            next(one)
            next(other)
        assert llama.busy_slots() == llama_cpp.SLOTS
    wait_for(lambda: llama.busy_slots() == 0)


def test_key_that_the_server_refuses_is_fetched_anew_and_the_request_sent_once_more(
    farm: ProxyFarm, llama: LlamaCpp
) -> None:
    keys = iter(["an-old-key", llama_cpp.API_KEY])
    with Issuer() as issuer:
        issuer.behave(lambda peer: peer.sendall(answer_of({"access_token": next(keys), "expires_in": 300})))
        proxy = farm.proxy(config_of(llama, issuer))
        with openai.OpenAI(base_url=proxy.api, api_key="any", max_retries=0) as client:
            assert client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=1).choices
        assert len(issuer.received) == 2
    assert llama_cpp.API_KEY not in proxy.log()


def test_file_of_the_model_is_small(tmp_path: Path) -> None:
    from tests.support.tiny_model import write_model

    write_model(tmp_path / "tiny.gguf")
    assert (tmp_path / "tiny.gguf").stat().st_size < 1_000_000
