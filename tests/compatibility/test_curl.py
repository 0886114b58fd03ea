"""curl, as people type it into a shell; tests/e2e/test_curl.py has the README's lines."""

import base64
import json
import os
import signal
import struct
import subprocess
from typing import Any

import pytest

from tests.support.compatibility import Client
from tests.support.proxy_process import ProxyProcess
from tests.support.sandbox_client import SandboxClient

COMMAND = ["curl", "--silent", "--show-error", "--no-buffer", "--max-time", "20", "--noproxy", "*"]
VERSION = subprocess.run(["curl", "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
CLIENTS = [Client("curl", VERSION, pinned=False)]
HELLO = [{"role": "user", "content": "Hello wörld"}]
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"}}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FORMAT = {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA}}


def command(proxy: ProxyProcess, path: str, **body: Any) -> list[str]:
    return [*COMMAND, proxy.api + path, "-H", "Content-Type: application/json", "-d", json.dumps(body)]


def post(proxy: ProxyProcess, path: str, **body: Any) -> str:
    return subprocess.run(command(proxy, path, **body), capture_output=True, text=True, check=True).stdout


def chat(proxy: ProxyProcess, **body: Any) -> dict[str, Any]:
    answer = json.loads(post(proxy, "/chat/completions", **{"model": "m", "messages": HELLO, **body}))
    return dict(answer["choices"][0]["message"])


@pytest.mark.cell(client="curl", feature="chat")
def test_chat_answers(proxy: ProxyProcess) -> None:
    assert "Hello wörld" in chat(proxy)["content"]


@pytest.mark.cell(client="curl", feature="stream")
def test_stream_says_the_same_and_ends_in_done(proxy: ProxyProcess) -> None:
    *frames, done, end = post(proxy, "/chat/completions", model="m", messages=HELLO, stream=True).split("\n\n")
    deltas = [json.loads(frame.removeprefix("data: "))["choices"][0]["delta"] for frame in frames]
    assert "".join(delta.get("content", "") for delta in deltas) == chat(proxy)["content"]
    assert (done, end) == ("data: [DONE]", "")


@pytest.mark.cell(client="curl", feature="tools")
def test_tool_is_called(proxy: ProxyProcess) -> None:
    (call,) = chat(proxy, tools=[TOOL])["tool_calls"]
    assert call["function"]["name"] == "weather"


@pytest.mark.cell(client="curl", feature="structured output")
def test_answer_follows_the_schema(proxy: ProxyProcess) -> None:
    assert json.loads(chat(proxy, response_format=FORMAT)["content"]).keys() == {"city"}


@pytest.mark.cell(client="curl", feature="vision parts")
def test_parts_of_a_message_go_up_as_they_are(proxy: ProxyProcess, sandbox: SandboxClient) -> None:
    content = [{"type": "text", "text": "What is it?"}, IMAGE]
    chat(proxy, messages=[{"role": "user", "content": content}])
    assert json.loads(sandbox.last()["body"])["messages"][0]["content"] == content


@pytest.mark.parametrize(
    ("inputs", "encoding"),
    [
        pytest.param(["one"], "float", marks=pytest.mark.cell(client="curl", feature="embeddings (floats)")),
        pytest.param(["one"], "base64", marks=pytest.mark.cell(client="curl", feature="embeddings (base64)")),
        pytest.param([[1, 2], [3]], "float", marks=pytest.mark.cell(client="curl", feature="token arrays")),
    ],
    ids=["floats", "base64", "token arrays"],
)
def test_embeddings_are_vectors(proxy: ProxyProcess, inputs: Any, encoding: str) -> None:
    answer = json.loads(post(proxy, "/embeddings", model="e", input=inputs, encoding_format=encoding))
    vectors = [item["embedding"] for item in answer["data"]]
    if encoding == "base64":
        vectors = [struct.unpack("<8f", base64.b64decode(vector)) for vector in vectors]
    assert [len(vector) for vector in vectors] == [8] * len(inputs)


@pytest.mark.cell(client="curl", feature="rerank")
def test_rerank_puts_the_best_first(proxy: ProxyProcess) -> None:
    answer = json.loads(post(proxy, "/rerank", model="r", query="red fox", documents=["cow", "red fox"]))
    assert [item["index"] for item in answer["results"]] == [1, 0]


@pytest.mark.cell(client="curl", feature="errors")
def test_an_error_is_json_with_its_status(proxy: ProxyProcess) -> None:
    words = command(proxy, "/chat/completions", messages=HELLO)
    done = subprocess.run([*words, "--write-out", "\n%{http_code}"], capture_output=True, text=True, check=True)
    body, status = done.stdout.rsplit("\n", 1)
    assert (status, json.loads(body)["error"]["code"]) == ("400", "invalid_request")


@pytest.mark.cell(client="curl", feature="cancel")
def test_an_interrupted_stream_is_gone_upstream_too(proxy: ProxyProcess, sandbox: SandboxClient) -> None:
    body = {"model": "m", "messages": HELLO, "stream": True, "sandbox_frames": 1000, "sandbox_interval_ms": 50}
    with subprocess.Popen(command(proxy, "/chat/completions", **body), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        os.kill(process.pid, signal.SIGINT)
    sandbox.wait_until(lambda state: state["open"] == 0)
    assert sandbox.last()["end"] == "caller_gone"
