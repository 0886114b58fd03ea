"""The official Python client, sync and async, as most callers use the proxy: the features of the matrix."""

import base64
import json
from array import array
from importlib.metadata import version
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from tests.support.compatibility import Client
from tests.support.guarded_proxy import guarded_config
from tests.support.openai_twins import Twin
from tests.support.proxy_process import ProxyFarm, ProxyProcess
from tests.support.sandbox_client import SandboxClient

NAME = "openai-python"
CLIENTS = [Client(NAME, version("openai"), {"rerank": "The client has no such call."})]
PREFIXES = ("/agent/api/llm_proxy/v1", "/agent/api/llm_proxy", "/agent/api/llm_proxy/v1/v1", "/v1", "", "/v1/v1")
HELLO: Any = [{"role": "user", "content": "Hello wörld"}]
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
TOOLS: Any = [
    {"type": "function", "function": {"name": name, "parameters": PARAMETERS}} for name in ("time", "weather")
]
WEATHER: Any = {"type": "function", "function": {"name": "weather"}}
PICTURE = {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"}
LONG = {"sandbox_frames": 10_000, "sandbox_interval_ms": 20}


class Trip(BaseModel):
    """What an answer is to be."""

    city: str
    days: int


@pytest.fixture(params=["sync", "async"])
def form(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def client(proxy: ProxyProcess, form: Any) -> Twin:
    return Twin(form, proxy.api)


def chat(**members: Any) -> Any:
    return lambda client: client.chat.completions.create(**{"model": "m", "messages": HELLO, **members})


def embed(inputs: Any, **members: Any) -> Any:
    return lambda client: client.embeddings.create(model="e", input=inputs, **members)


@pytest.mark.cell(client=NAME, feature="chat")
@pytest.mark.parametrize("prefix", PREFIXES)
def test_chat_answers_under_every_prefix(proxy: ProxyProcess, prefix: str) -> None:
    answer = Twin("sync", proxy.url + prefix).ask(chat())
    assert "Hello wörld" in answer.choices[0].message.content


@pytest.mark.cell(client=NAME, feature="chat")
def test_chat_answers_with_n_choices_and_its_usage(client: Twin) -> None:
    answer = client.ask(chat(n=2))
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


@pytest.mark.cell(client=NAME, feature="stream")
def test_streamed_chat_is_the_same_text_and_ends_with_usage(client: Twin) -> None:
    whole = client.ask(chat()).choices[0].message.content
    chunks = client.ask(chat(stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == whole
    assert chunks[-1].usage is not None
    assert chunks[-2].choices[0].finish_reason == "stop"


@pytest.mark.cell(client=NAME, feature="tools")
def test_the_tool_that_is_forced_is_called_whole_and_in_deltas(client: Twin) -> None:
    whole = client.ask(chat(tools=TOOLS, tool_choice=WEATHER)).choices[0]
    chunks = client.ask(chat(tools=TOOLS, tool_choice=WEATHER, stream=True))
    deltas = [delta for chunk in chunks for delta in chunk.choices[0].delta.tool_calls or []]
    (call,) = whole.message.tool_calls
    assert (call.function.name, whole.finish_reason) == ("weather", "tool_calls")
    assert json.loads(call.function.arguments) == {"city": "You said: Hello wörld", "days": 1}
    assert [delta.function.name for delta in deltas if delta.function.name] == ["weather"]
    assert "".join(delta.function.arguments for delta in deltas) == call.function.arguments


@pytest.mark.cell(client=NAME, feature="structured output")
def test_an_answer_is_parsed_into_the_model_that_gave_the_schema(client: Twin) -> None:
    messages = [{"role": "user", "content": "3 days"}]
    answer = client.ask(
        lambda openai: openai.chat.completions.parse(model="m", messages=messages, response_format=Trip)
    )
    assert answer.choices[0].message.parsed == Trip(city="You said: 3 days", days=3)


@pytest.mark.cell(client=NAME, feature="structured output")
def test_a_streamed_answer_is_parsed_too(proxy: ProxyProcess) -> None:
    with (
        openai.OpenAI(base_url=proxy.api, api_key="any") as client,
        client.chat.completions.stream(model="m", messages=HELLO, response_format=Trip) as stream,
    ):
        kinds = {event.type for event in stream}
        assert stream.get_final_completion().choices[0].message.parsed == Trip(city="You said: Hello wörld", days=1)
    assert {"content.delta", "content.done"} <= kinds


def embedding(inputs: Any, feature: str, name: str, **options: Any) -> Any:
    return pytest.param(inputs, options, id=name, marks=pytest.mark.cell(client=NAME, feature=feature))


@pytest.mark.parametrize(
    ("inputs", "options"),
    [
        embedding(["one", "two"], "embeddings (floats)", "floats", encoding_format="float"),
        # Without a format the client asks for base64 and unpacks it.
        embedding("one", "embeddings (base64)", "a text"),
        embedding(["one", "two"], "embeddings (base64)", "texts"),
        embedding([1, 2, 3], "token arrays", "a token array"),
        embedding([[1, 2], [3]], "token arrays", "token arrays"),
    ],
)
def test_embeddings_are_those_of_the_upstream(client: Twin, sandbox: SandboxClient, inputs: Any, options: Any) -> None:
    vectors = [item.embedding for item in client.ask(embed(inputs, **options)).data]
    asked = json.loads(sandbox.last()["body"])
    assert (asked["input"], asked["encoding_format"]) == (inputs, options.get("encoding_format", "base64"))
    is_one = isinstance(inputs, str) or isinstance(inputs[0], int)
    for one, vector in zip([inputs] if is_one else inputs, vectors, strict=True):
        alone = client.ask(embed(one, encoding_format="float")).data[0].embedding
        assert vector == pytest.approx(alone, abs=1e-6)


@pytest.mark.cell(client=NAME, feature="embeddings (base64)")
def test_base64_is_honoured_where_the_upstream_ignores_it(client: Twin, sandbox: SandboxClient) -> None:
    floats = client.ask(embed(["a", "b"], encoding_format="float")).data
    sandbox.faults(upstream=[{"kind": "ignore_base64"}])
    # Asked for by name it is handed on as it comes; by itself the client takes floats for it, which older ones don't.
    packed = client.ask(embed(["a", "b"], encoding_format="base64")).data
    for item, vector in zip(packed, floats, strict=True):
        assert array("f", base64.b64decode(item.embedding)).tolist() == pytest.approx(vector.embedding, abs=1e-6)
    assert client.ask(embed(["a", "b"])).data == floats


@pytest.mark.cell(client=NAME, feature="vision parts")
def test_parts_of_a_message_go_up_as_they_are(client: Twin, sandbox: SandboxClient) -> None:
    content = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": PICTURE}]
    client.ask(chat(messages=[{"role": "user", "content": content}]))
    assert json.loads(sandbox.last()["body"])["messages"][0]["content"] == content


@pytest.mark.cell(client=NAME, feature="errors")
@pytest.mark.parametrize(
    ("key", "members", "expected", "code"),
    [
        ("wrong", {}, openai.AuthenticationError, "invalid_api_key"),
        ("key-some", {}, openai.PermissionDeniedError, "model_not_allowed"),
        ("key-all", {"model": "unknown"}, openai.NotFoundError, "model_not_found"),
        ("key-all", {"model": ""}, openai.BadRequestError, "invalid_request"),
    ],
    ids=["401", "403", "404", "400"],
)
def test_refusals_are_the_clients_own_exceptions(
    farm: ProxyFarm,
    sandbox: SandboxClient,
    form: Any,
    key: str,
    members: Any,
    expected: type[openai.APIStatusError],
    code: str,
) -> None:
    proxy = farm.proxy(guarded_config(sandbox, "gevent"))
    with pytest.raises(expected) as caught:
        Twin(form, proxy.url + "/v1", api_key=key).ask(chat(**members))
    assert caught.value.code == code


@pytest.mark.cell(client=NAME, feature="errors")
@pytest.mark.parametrize(
    ("status", "expected"),
    [(400, openai.BadRequestError), (422, openai.UnprocessableEntityError), (500, openai.InternalServerError)],
    ids=str,
)
def test_an_error_of_the_upstream_comes_with_its_words(
    client: Twin, sandbox: SandboxClient, status: int, expected: type[openai.APIStatusError]
) -> None:
    body = '{"error": {"message": "max_tokens too large", "type": "some_error", "param": "max_tokens", "code": "x"}}'
    sandbox.faults(upstream=[{"kind": "status", "status": status, "body": body}])
    with pytest.raises(expected, match="max_tokens too large") as caught:
        client.ask(chat())
    assert (caught.value.type, caught.value.param, caught.value.code) == ("some_error", "max_tokens", "x")


@pytest.mark.cell(client=NAME, feature="errors")
def test_a_rate_limit_tells_when_to_come_again(client: Twin, sandbox: SandboxClient) -> None:
    sandbox.faults(upstream=[{"kind": "status", "status": 429, "headers": {"Retry-After": "7"}}])
    with pytest.raises(openai.RateLimitError) as caught:
        client.ask(chat())
    assert caught.value.response.headers["Retry-After"] == "7"


@pytest.mark.cell(client=NAME, feature="errors")
def test_the_client_comes_again_by_itself_until_it_is_served(
    proxy: ProxyProcess, sandbox: SandboxClient, form: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    statuses = (429, 500, 502, 503)
    sandbox.faults(upstream=[{"kind": "status", "status": status, "times": 1} for status in statuses])
    answer = Twin(form, proxy.api, max_retries=len(statuses)).ask(chat())
    assert "Hello" in answer.choices[0].message.content
    assert [entry["status"] for entry in sandbox.log()] == [*statuses, 200]


@pytest.mark.cell(client=NAME, feature="errors")
def test_a_stream_that_breaks_off_is_an_error_and_no_short_answer(client: Twin, sandbox: SandboxClient) -> None:
    sandbox.faults(upstream=[{"kind": "cut", "frames": 3}])
    with pytest.raises(openai.APIError, match="broke off"):
        client.ask(chat(stream=True))


@pytest.mark.cell(client=NAME, feature="cancel")
def test_a_stream_that_is_closed_is_gone_upstream_too(client: Twin, sandbox: SandboxClient) -> None:
    client.leave_after_first(chat(stream=True, extra_body=LONG))
    sandbox.wait_until(lambda state: state["open"] == 0)
    assert sandbox.last()["end"] == "caller_gone"
