"""The README's calls and those of the recipe, as a person types them."""

import json
import os
import signal
import subprocess

import pytest

from tests.support.proxy_process import ProxyProcess
from tests.support.recipe import code_of
from tests.support.sandbox_client import SandboxClient

CURL = ("curl", "--silent", "--show-error", "--max-time", "20", "--noproxy", "*")
HELLO = '{"model": "m", "stream": true, "messages": [{"role": "user", "content": "Hello"}]}'


def curl(*words: str) -> str:
    done = subprocess.run(
        [*CURL, *words],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_chat(proxy: ProxyProcess) -> None:
    body = '{"model": "sandbox-chat", "messages": [{"role": "user", "content": "Hello"}]}'
    answer = json.loads(curl(f"{proxy.api}/chat/completions", "-d", body))
    assert "Hello" in answer["choices"][0]["message"]["content"]


def test_stream_ends_in_done(proxy: ProxyProcess) -> None:
    body = '{"model": "sandbox-chat", "stream": true, "messages": [{"role": "user", "content": "Hello"}]}'
    assert curl("-N", f"{proxy.api}/chat/completions", "-d", body).endswith("data: [DONE]\n\n")


def test_embeddings(proxy: ProxyProcess) -> None:
    answer = json.loads(curl(f"{proxy.api}/embeddings", "-d", '{"model": "sandbox-embedding", "input": "Hello"}'))
    assert len(answer["data"][0]["embedding"]) == 8


def test_http_1_0_is_served_and_its_connection_closed(proxy: ProxyProcess) -> None:
    assert curl("--http1.0", "-N", f"{proxy.api}/chat/completions", "-d", HELLO).endswith("data: [DONE]\n\n")


def test_models_tolerate_a_body(proxy: ProxyProcess) -> None:
    answer = json.loads(curl("-X", "GET", f"{proxy.api}/models", "-d", "{}"))
    assert answer["object"] == "list"


def test_rerank_as_ragflow_asks_for_it_at_the_root(proxy: ProxyProcess) -> None:
    body = '{"model": "sandbox-rerank", "query": "a", "documents": ["a", "b"], "top_n": 2}'
    answer = json.loads(curl(f"{proxy.url}/rerank", "-d", body))
    assert {item["index"] for item in answer["results"]} == {0, 1}


def test_first_frame_is_shown_while_the_stream_is_open_and_ctrl_c_closes_the_upstream(
    proxy: ProxyProcess, sandbox: SandboxClient
) -> None:
    sandbox.frames(b'data: {"choices": []}\n\n', b"data: {}\n\n", pause_ms=20_000)
    words = [*CURL, "-N", f"{proxy.api}/chat/completions", "-d", HELLO]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        try:
            assert running.stdout.readline() == b'data: {"choices": []}\n'
            sandbox.wait_until(lambda state: state["open"] == 1)
        finally:
            running.send_signal(signal.SIGINT)
        sandbox.wait_until(lambda state: state["open"] == 0)
    assert sandbox.last()["end"] == "caller_gone"


def test_http_2_that_is_offered_is_answered_in_http_1_1(proxy: ProxyProcess) -> None:
    answer = curl("--http2", "-N", f"{proxy.api}/chat/completions", "-d", HELLO, "-w", "%{http_version}")
    assert answer.endswith("data: [DONE]\n\n1.1")


def test_http_2_without_asking_is_refused_and_written_down(proxy: ProxyProcess) -> None:
    logged = proxy.logged_bytes()
    with pytest.raises(subprocess.CalledProcessError):
        curl("--http2-prior-knowledge", f"{proxy.api}/chat/completions", "-d", HELLO)
    assert curl(f"{proxy.url}/healthz") == '{"status":"ok"}\n'
    assert [line.partition("status=")[2][:3] for line in proxy.access_lines(logged)][:1] == ["400"]


def run_recipe(proxy: ProxyProcess, number: int) -> subprocess.CompletedProcess[str]:
    """One block of the recipe, by its place; the first says what BASE and KEY are."""
    words = ["bash", "-c", code_of("curl", "sh")[number]]
    places = {"BASE": proxy.api, "KEY": "any", "no_proxy": "*"}
    return subprocess.run(words, env={**os.environ, **places}, capture_output=True, text=True, timeout=20)


def test_calls_of_the_recipe_do_what_it_says(proxy: ProxyProcess) -> None:
    stream, embeddings = run_recipe(proxy, 1), run_recipe(proxy, 2)
    assert (stream.returncode, embeddings.returncode) == (0, 0)
    assert stream.stdout.endswith("data: [DONE]\n\n")
    head, _, body = embeddings.stdout.partition("\n\n")
    assert "X-Request-Id: " in head
    assert len(json.loads(body)["data"]) == 2


def test_error_of_the_recipe_is_shown_and_is_an_exit_status(proxy: ProxyProcess, sandbox: SandboxClient) -> None:
    sandbox.faults(upstream=[{"kind": "status", "status": 429, "body": '{"error": {"message": "Too many."}}'}])
    done = run_recipe(proxy, 1)
    assert (done.returncode, json.loads(done.stdout)["error"]["message"]) == (22, "Too many.")
