"""Java's own HttpClient, which offers HTTP/2 in the head of each request to plain http, by the code of its recipe."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.compatibility import FEATURES, Client
from tests.support.proxy_process import ProxyProcess
from tests.support.recipe import code_of
from tests.support.sandbox_client import SandboxClient

NAME = "Java's HttpClient"
SHOWN = ("stream", "errors", "cancel")
NOT_TRIED = "Not tried: to it this is a POST like those of curl, and its recipe only reads streamed text."
NOT_THERE = dict.fromkeys((feature for feature in FEATURES if feature not in SHOWN), NOT_TRIED)
VERSION = subprocess.run(["java", "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
CLIENTS = [Client(NAME, VERSION, NOT_THERE, pinned=False)]
SOURCE = Path(__file__).with_name("StreamReader.java")
WITHIN_S = 30.0


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the reader, compiled once."""
    assert shutil.which("javac"), "a JDK is missing; make test installs it"
    folder = tmp_path_factory.mktemp("classes")
    subprocess.run(["javac", "-d", str(folder), str(SOURCE)], check=True, timeout=WITHIN_S)
    return folder


@contextmanager
def running(classes: Path, proxy: ProxyProcess, **members: Any) -> Iterator[subprocess.Popen[str]]:
    body = {"model": "sandbox-chat", "messages": [{"role": "user", "content": "Hello wörld 🌍"}], **members}
    words = [proxy.api, "any", json.dumps({"stream": True, **body})]
    process = subprocess.Popen(
        ["java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-cp", str(classes), "StreamReader", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def content_of(lines: list[str]) -> str:
    deltas = [choice["delta"] for line in lines for choice in json.loads(line)["choices"]]
    return "".join(delta.get("content") or "" for delta in deltas)


def test_code_of_the_recipe_is_what_is_run() -> None:
    assert code_of("java", "java") == [SOURCE.read_text()]


@pytest.mark.cell(client=NAME, feature="stream")
def test_stream_is_read_to_its_end_though_http_2_was_offered(
    classes: Path, proxy: ProxyProcess, sandbox: SandboxClient
) -> None:
    with running(classes, proxy) as reader:
        text, errors = reader.communicate(timeout=WITHIN_S)
    assert (reader.returncode, errors) == (0, "")
    *lines, last = text.splitlines()
    assert last == "[DONE]"
    assert "Hello wörld 🌍" in content_of(lines)
    asked = sandbox.last()
    assert json.loads(asked["body"])["messages"][0]["content"] == "Hello wörld 🌍"
    sent = {name.lower() for name, _ in asked["headers"]}
    assert not sent & {"upgrade", "http2-settings"}


@pytest.mark.cell(client=NAME, feature="cancel")
def test_first_chunk_is_read_while_the_stream_is_open_and_a_killed_reader_closes_the_upstream(
    classes: Path, proxy: ProxyProcess, sandbox: SandboxClient
) -> None:
    sandbox.frames(b'data: {"choices": [{"delta": {"content": "first"}}]}\n\n', b"data: {}\n\n", pause_ms=20_000)
    with running(classes, proxy) as reader:
        assert reader.stdout is not None
        assert content_of([reader.stdout.readline()]) == "first"
        sandbox.wait_until(lambda state: state["open"] == 1)
        reader.kill()
        sandbox.wait_until(lambda state: state["open"] == 0)
    assert sandbox.last()["end"] == "caller_gone"


@pytest.mark.cell(client=NAME, feature="errors")
def test_stream_that_broke_off_is_an_error(classes: Path, proxy: ProxyProcess, sandbox: SandboxClient) -> None:
    sandbox.faults(upstream=[{"kind": "cut", "frames": 2}])
    with running(classes, proxy) as reader:
        text, errors = reader.communicate(timeout=WITHIN_S)
    assert (reader.returncode, errors) == (1, "The answer broke off.\n")
    assert "error" in json.loads(text.splitlines()[-1])
