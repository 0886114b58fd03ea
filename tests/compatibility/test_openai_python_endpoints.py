"""The official Python client at the endpoints that have no column in the matrix, sync and async."""

import asyncio
import hashlib
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from tests.support.openai_twins import Twin
from tests.support.proxy_process import ProxyProcess
from tests.support.sandbox_client import SandboxClient

HELLO: Any = [{"role": "user", "content": "Hello wörld"}]
SOUND = bytes(range(256)) * 1000
EVENTS = [
    "response.created",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
]


class City(BaseModel):
    """What an answer is to be."""

    name: str


@pytest.fixture(params=["sync", "async"])
def client(request: pytest.FixtureRequest, proxy: ProxyProcess) -> Twin:
    return Twin(request.param, proxy.api)


def test_legacy_completions_are_the_same_text_whole_and_streamed(client: Twin) -> None:
    def complete(**members: Any) -> Any:
        return client.ask(lambda openai: openai.completions.create(model="m", prompt=["Hello", "you"], **members))

    whole = [choice.text for choice in complete().choices]
    chunks = complete(stream=True)
    for index, text in enumerate(whole):
        pieces = [chunk.choices[0].text for chunk in chunks if chunk.choices[0].index == index]
        assert "".join(pieces) == text


def test_a_response_comes_whole_and_as_typed_events(client: Twin) -> None:
    whole = client.ask(lambda openai: openai.responses.create(model="m", input="Hello"))
    events = client.ask(lambda openai: openai.responses.create(model="m", input="Hello", stream=True))
    assert list(dict.fromkeys(event.type for event in events)) == EVENTS
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == events[-1].response.output_text == whole.output_text


def test_a_response_is_parsed_into_the_model_that_gave_the_schema(client: Twin) -> None:
    answer = client.ask(lambda openai: openai.responses.parse(model="m", input="Hello", text_format=City))
    assert answer.output_parsed == City(name="You said: Hello")


def test_a_response_that_breaks_off_is_an_error(client: Twin, sandbox: SandboxClient) -> None:
    sandbox.faults(upstream=[{"kind": "cut", "frames": 4}])
    with pytest.raises(openai.APIError, match="broke off"):
        client.ask(lambda openai: openai.responses.create(model="m", input="Hello", stream=True))


def test_moderations_have_a_result_for_each_input(client: Twin) -> None:
    results = client.ask(lambda openai: openai.moderations.create(model="m", input=["a", "b"])).results
    assert [result.flagged for result in results] == [False, False]
    assert results[0].categories.violence is False


def test_images_are_generated(client: Twin) -> None:
    images = client.ask(lambda openai: openai.images.generate(model="m", prompt="grey", n=2)).data
    assert [image.b64_json[:8] for image in images] == ["iVBORw0K"] * 2


def test_speech_comes_down_as_bytes(client: Twin, sandbox: SandboxClient) -> None:
    speech = client.ask(
        lambda openai: openai.audio.speech.create(
            model="m", voice="x", input="Hello", extra_body={"sandbox_answer_chars": 1_000_000}
        )
    )
    assert len(speech.content) > 1_000_000
    assert hashlib.sha256(speech.content).hexdigest() == sandbox.last()["answer_sha256"]


def test_speech_is_streamed_into_the_callers_hands(proxy: ProxyProcess, sandbox: SandboxClient) -> None:
    with (
        openai.OpenAI(base_url=proxy.api, api_key="any", max_retries=0) as client,
        client.audio.speech.with_streaming_response.create(model="m", voice="x", input="Hello") as speech,
    ):
        assert speech.headers["Content-Type"] == "audio/wav"
        digest = hashlib.sha256(b"".join(speech.iter_bytes(1000)))
    assert digest.hexdigest() == sandbox.last()["answer_sha256"]


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # translations, by the client
@pytest.mark.parametrize("kind", ["transcriptions", "translations"])
def test_sound_goes_up_as_it_is(client: Twin, sandbox: SandboxClient, kind: str) -> None:
    answer = client.ask(lambda openai: getattr(openai.audio, kind).create(model="m", file=("a.wav", SOUND)))
    entry = sandbox.last()
    assert answer.text.startswith(f"The sandbox heard {entry['body_bytes']} bytes")
    assert SOUND in entry["body"]
    assert entry["path"] == f"/v1/audio/{kind}"


def test_models_are_listed_and_found_with_their_extra_members(client: Twin) -> None:
    assert "sandbox-chat" in [model.id for model in client.ask(lambda openai: openai.models.list()).data]
    model = client.ask(lambda openai: openai.models.retrieve("sandbox-chat"))
    assert model.context_window == 128_000
    with pytest.raises(openai.NotFoundError):
        client.ask(lambda openai: openai.models.retrieve("no-such-model"))


def test_async_client_runs_many_requests_at_once(proxy: ProxyProcess) -> None:
    async def run() -> list[str]:
        async with openai.AsyncOpenAI(base_url=proxy.api, api_key="any", max_retries=0) as client:

            async def one(number: int) -> str:
                messages: Any = [{"role": "user", "content": f"number {number}"}]
                stream = await client.chat.completions.create(model="m", messages=messages, stream=True)
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

            return await asyncio.gather(*(one(number) for number in range(20)))

    texts = asyncio.run(run())
    assert all(f"number {number}" in text for number, text in enumerate(texts))
