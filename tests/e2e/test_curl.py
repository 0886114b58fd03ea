"""The README's calls, as a person types them."""

import json
import subprocess

from tests.support.proxy_process import ProxyProcess


def curl(*words: str) -> str:
    done = subprocess.run(
        ["curl", "--silent", "--show-error", "--max-time", "20", "--noproxy", "*", *words],
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
    body = '{"model": "m", "stream": true, "messages": [{"role": "user", "content": "Hello"}]}'
    assert curl("--http1.0", "-N", f"{proxy.api}/chat/completions", "-d", body).endswith("data: [DONE]\n\n")


def test_models_tolerate_a_body(proxy: ProxyProcess) -> None:
    answer = json.loads(curl("-X", "GET", f"{proxy.api}/models", "-d", "{}"))
    assert answer["object"] == "list"


def test_rerank_as_ragflow_asks_for_it_at_the_root(proxy: ProxyProcess) -> None:
    body = '{"model": "sandbox-rerank", "query": "a", "documents": ["a", "b"], "top_n": 2}'
    answer = json.loads(curl(f"{proxy.url}/rerank", "-d", body))
    assert {item["index"] for item in answer["results"]} == {0, 1}
