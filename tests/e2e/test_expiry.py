"""Tokens that live six seconds under load by real clients: nobody notices that they change."""

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from tests.support.proxy_process import ProxyFarm, ProxyProcess
from tests.support.sandbox_client import SandboxClient

LIFETIME_S = 6.0
ISSUER_TAKES_S = 1.0  # so that a request that waited for a renewal shows
MESSAGES: Any = [{"role": "user", "content": "Hello"}]


@pytest.fixture
def short_lived() -> Iterator[SandboxClient]:
    with SandboxClient.start(token_lifetime_s=LIFETIME_S) as sandbox:
        sandbox.faults(issuer=[{"kind": "delay", "delay_s": ISSUER_TAKES_S}])
        yield sandbox


def calls(proxy: ProxyProcess) -> list[Callable[[], None]]:
    """One call for each kind of client; each raises where the answer is not whole."""
    client = openai.OpenAI(base_url=proxy.api, api_key="any", max_retries=0, timeout=20)
    chain = ChatOpenAI(base_url=proxy.url, api_key=SecretStr("any"), model="m", max_retries=0)

    def chat() -> None:
        assert client.chat.completions.create(model="m", messages=MESSAGES).choices[0].message.content

    def stream() -> None:
        chunks = list(client.chat.completions.create(model="m", messages=MESSAGES, stream=True))
        assert chunks[-1].choices[0].finish_reason == "stop"

    def embeddings() -> None:
        assert len(client.embeddings.create(model="e", input=["a", "b"]).data) == 2

    def langchain() -> None:
        assert "".join(str(chunk.content) for chunk in chain.stream("Hello"))

    def curl() -> None:
        body = '{"model": "m", "messages": [{"role": "user", "content": "Hello"}]}'
        words = ["curl", "-sS", "--fail", "--max-time", "20", "--noproxy", "*", f"{proxy.api}/chat/completions"]
        subprocess.run([*words, "-d", body], check=True, capture_output=True, timeout=30)

    return [chat, stream, embeddings, langchain, curl]


class Load:
    """Threads that repeat their calls until the time is over."""

    def __init__(self, works: list[Callable[[], None]]) -> None:
        self.failures: list[str] = []
        self.longest_s = 0.0
        self.done = 0
        self._works = works
        self._lock = threading.Lock()

    def run(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        threads = [threading.Thread(target=self._repeat, args=(work, until)) for work in self._works]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _repeat(self, work: Callable[[], None], until: float) -> None:
        while time.monotonic() < until:
            began = time.monotonic()
            try:
                work()
            except Exception as error:
                self.failures.append(f"{work.__name__}: {error!r}")
            with self._lock:
                self.longest_s = max(self.longest_s, time.monotonic() - began)
                self.done += 1
            time.sleep(0.02)


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("worker_class", "seconds"), [("gevent", 60), ("gthread", 20)])
def test_no_request_fails_or_waits_while_tokens_of_six_seconds_change(
    farm: ProxyFarm, short_lived: SandboxClient, worker_class: str, seconds: float
) -> None:
    proxy = farm.proxy(short_lived.config(server={"worker_class": worker_class, "workers": 2}))
    Load(calls(proxy) * 2).run(4)  # both workers get their first token
    load = Load(calls(proxy))
    load.run(seconds)
    state = short_lived.state()
    print(f"{load.done} requests, longest {load.longest_s:.2f} s, {state}")
    assert load.failures == []
    assert set(state["tokens"]) <= {"valid"} or sum(state["tokens"].values()) == state["tokens"]["valid"]
    assert load.longest_s < ISSUER_TAKES_S
    # Both workers share one token: a renewal every 2.4 to 4 s, and none besides.
    assert state["fetches"] <= (4 + seconds + 4) / 2.4 + 2
