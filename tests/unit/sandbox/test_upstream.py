"""The upstream's answers, read with the official SDK where it has a method for them."""

import hashlib
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.unit.sandbox.conftest import CHAT, Toy

ASKED: list[Any] = [{"role": "user", "content": "Grüße 👋"}]
TOOLS: list[Any] = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]


@pytest.fixture
def client(toy: Toy) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=toy.url + "/v1", api_key=toy.fetch_token(), max_retries=0) as client:
        yield client


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("state", ["missing", "bad", "revoked"])
def test_request_without_a_good_token_is_refused(toy: Toy, state: str, stream: bool) -> None:
    headers = {"missing": {}, "bad": {"Authorization": "Bearer x"}}.get(
        state, {"Authorization": f"Bearer {toy.fetch_token()}"}
    )
    toy.http.post("/_sandbox/revoke")
    answer = toy.http.post(CHAT, json={"messages": ASKED, "stream": stream}, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_token")
    assert answer.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
    assert toy.state()["tokens"][state] == 1
    assert toy.last()["token"] == state


def test_chat_says_the_same_plain_and_streamed(client: openai.OpenAI) -> None:
    plain = client.chat.completions.create(model="any", messages=ASKED, n=2)
    chunks = list(client.chat.completions.create(model="any", messages=ASKED, n=2, stream=True))
    for index in (0, 1):
        deltas = [c.choices[0].delta.content or "" for c in chunks if c.choices[0].index == index]
        assert "".join(deltas) == plain.choices[index].message.content
        assert "Grüße 👋" in "".join(deltas)
    assert [c.choices[0].finish_reason for c in chunks[-2:]] == ["stop", "stop"]


def test_tools_are_called_plain_and_streamed(client: openai.OpenAI) -> None:
    plain = client.chat.completions.create(model="any", messages=ASKED, tools=TOOLS)
    (call,) = plain.choices[0].message.tool_calls or []
    chunks = list(client.chat.completions.create(model="any", messages=ASKED, tools=TOOLS, stream=True))
    pieces = [c.choices[0].delta.tool_calls[0].function for c in chunks if c.choices[0].delta.tool_calls]
    assert call.type == "function"
    assert [piece.name for piece in pieces if piece and piece.name] == ["look"]
    assert "".join(piece.arguments or "" for piece in pieces if piece) == call.function.arguments
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_usage_comes_last_in_a_stream_that_asks_for_it(client: openai.OpenAI) -> None:
    options: Any = {"include_usage": True}
    stream = client.chat.completions.create(model="any", messages=ASKED, stream=True, stream_options=options)
    *_, last = stream
    assert (last.choices, last.usage is not None) == ([], True)


def test_size_and_number_of_frames_are_as_asked(toy: Toy) -> None:
    pace = {"sandbox_frames": 10, "sandbox_interval_ms": 1, "sandbox_answer_chars": 1000}
    answer = toy.post(CHAT, messages=ASKED, stream=True, **pace)
    assert answer.text.count("data: ") == 13  # the role, the ten, the finish reason and [DONE]
    assert answer.text.endswith("data: [DONE]\n\n")
    entry = toy.last()
    assert (entry["frames_sent"], entry["end"], entry["token"]) == (13, "done", "valid")
    assert entry["answer_sha256"] == hashlib.sha256(answer.content).hexdigest()


def test_completions_and_responses_stream_what_they_say_plain(client: openai.OpenAI) -> None:
    text = client.completions.create(model="any", prompt=["a", "b"]).choices[1].text
    chunks = client.completions.create(model="any", prompt=["a", "b"], stream=True)
    assert "".join(c.choices[0].text for c in chunks if c.choices[0].index == 1) == text
    said = client.responses.create(model="any", input="Hello").output_text
    with client.responses.stream(model="any", input="Hello") as events:
        assert events.get_final_response().output_text == said


@pytest.mark.parametrize("inputs", ["one", ["one", "two"], [1, 2], [[1, 2], [3]]], ids=str)
def test_both_encodings_hold_the_same_embedding(client: openai.OpenAI, inputs: Any) -> None:
    # Without a format the SDK asks for base64 and decodes it.
    packed = client.embeddings.create(model="any", input=inputs, dimensions=5)
    floats = client.embeddings.create(model="any", input=inputs, dimensions=5, encoding_format="float")
    assert [each.embedding for each in packed.data] == [each.embedding for each in floats.data]
    assert {len(each.embedding) for each in floats.data} == {5}


def test_other_resources_answer(client: openai.OpenAI, toy: Toy) -> None:
    assert {model.id for model in client.models.list()} > {"sandbox-chat", "sandbox-rerank"}
    assert client.models.retrieve("sandbox-chat").model_extra == {"context_window": 128_000}
    assert not client.moderations.create(input=["a", "b"]).results[1].flagged
    documents = ["cow", "red fox", "red"]
    ranked = toy.post("/v1/rerank", model="any", query="red fox", documents=documents, top_n=2)
    assert [result["index"] for result in ranked.json()["results"]] == [1, 2]
    assert client.audio.speech.create(model="any", voice="x", input="hi").content.startswith(b"RIFF")
    assert "bytes" in client.audio.transcriptions.create(model="any", file=b"abc").text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/nix", 404), ("POST", "/v1//models", 404), ("GET", CHAT, 405), ("POST", CHAT, 400)],
)
def test_what_cannot_be_answered_is_noted_too(toy: Toy, method: str, path: str, status: int) -> None:
    headers = {"Authorization": f"Bearer {toy.fetch_token()}"}
    answer = toy.http.request(method, toy.url + path, headers=headers)
    assert (answer.status_code, "message" in answer.json()["error"]) == (status, True)
    assert (toy.last()["path"], toy.last()["status"]) == (path, status)


def test_ended_requests_are_taken_out_of_the_log_once_and_stay_counted(toy: Toy) -> None:
    toy.faults({"kind": "hang", "model": "slow"})
    toy.post(CHAT, model="quick", messages=ASKED)
    with toy.open_chat(stream=False, model="slow"):
        while toy.state()["open"] == 0:
            pass
        taken = toy.http.post("/_sandbox/log/take").json()
        assert [entry["model"] for entry in taken if entry["kind"] == "upstream"] == ["quick"]
        assert toy.http.post("/_sandbox/log/take").json() == []
        assert toy.last()["model"] == "slow"
        assert toy.state()["requests"] == 2
