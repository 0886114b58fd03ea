"""What of the openai SDK the upstream clients rest on: a release that changes it goes red here, not in production."""

import asyncio
import inspect
from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from proxy.errors import UpstreamAnswer, UpstreamUnavailable
from proxy.tokens.holder import TokenHolder
from proxy.tokens.sources.base import Grant, Source
from proxy.tokens.stores.memory import MemoryStore
from proxy.upstreams.answer_body import Timeouts
from proxy.upstreams.client import AsyncUpstreamClient, RefusedToken, UpstreamClient, UpstreamOptions
from proxy.upstreams.exchange import Exchange
from proxy.upstreams.request_builder import UpstreamSettings
from proxy.upstreams.transport import SocketTransport
from tests.support.sandbox_client import SandboxClient

BODY = b'{"model": "m", "messages": [{"role": "user", "content": "x"}], "unknown_member": [1]}'


class SandboxSource(Source):
    """Fetches from the sandbox's issuer as the http_json source does, and counts."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.fetches = 0

    def fetch(self) -> Grant:
        self.fetches += 1
        credentials = {"appId": "sandbox-app", "appSecret": "sandbox-secret"}
        return Grant(httpx2.post(f"{self._url}/token", json=credentials, trust_env=False).json()["access_token"], 300)

    def close(self) -> None:
        pass


@pytest.fixture
def source(own_sandbox: SandboxClient) -> SandboxSource:
    return SandboxSource(own_sandbox.url)


@pytest.fixture
def tokens(source: SandboxSource) -> Iterator[TokenHolder]:
    holder = TokenHolder("corp", source, MemoryStore())
    yield holder
    holder.close()


@pytest.fixture
def settings(own_sandbox: SandboxClient) -> UpstreamSettings:
    return UpstreamSettings(base_url=own_sandbox.url + "/v1")


@pytest.fixture
def client(settings: UpstreamSettings, tokens: TokenHolder) -> Iterator[UpstreamClient]:
    transport = SocketTransport(httpx2.URL(settings.base_url), tls=None, timeouts=Timeouts())
    with UpstreamClient(settings, tokens, transport) as client:
        yield client


def send(client: UpstreamClient, exchange: Exchange | None = None) -> bytes:
    answer = client.send("post", "/chat/completions", content=BODY, fields=[], exchange=exchange or Exchange())
    body = b""
    while data := answer.read():
        body += data
    answer.close()
    return body


def test_the_sdk_is_of_the_release_that_the_hooks_were_read_in() -> None:
    major, minor, *_ = openai.__version__.split(".")
    assert int(major) == 3
    assert int(minor) >= 52


@pytest.mark.parametrize("owner", [OpenAI, AsyncOpenAI])
@pytest.mark.parametrize(
    ("hook", "parameters"),
    [
        ("_build_request", ["self", "options", "retries_taken"]),
        ("_send_request", ["self", "request", "stream", "kwargs"]),
        ("request", ["self", "cast_to", "options", "stream", "stream_cls"]),
    ],
)
def test_a_hook_has_the_parameters_that_we_override(owner: Any, hook: str, parameters: list[str]) -> None:
    assert list(inspect.signature(getattr(owner, hook)).parameters) == parameters


def test_a_request_goes_through_both_hooks_once(client: UpstreamClient, monkeypatch: pytest.MonkeyPatch) -> None:
    passed = []
    for hook in ("_build_request", "_send_request"):
        original = getattr(UpstreamClient, hook)

        def record(self: Any, *args: Any, _original: Any = original, _hook: str = hook, **kwargs: Any) -> Any:
            passed.append(_hook)
            return _original(self, *args, **kwargs)

        monkeypatch.setattr(UpstreamClient, hook, record)
    assert b"choices" in send(client)
    assert passed == ["_build_request", "_send_request"]


def test_the_options_keep_our_exchange_when_the_sdk_copies_them() -> None:
    exchange = Exchange()
    options: Any = UpstreamOptions.construct(method="post", url="/x", content=b"", exchange=exchange)  # type: ignore[call-arg]
    assert options.model_copy().exchange is exchange


def test_nothing_of_the_environment_reaches_the_upstream(
    own_sandbox: SandboxClient, settings: UpstreamSettings, tokens: TokenHolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "OPENAI_API_KEY": "from-environment",
        "OPENAI_ADMIN_KEY": "from-environment",
        "OPENAI_BASE_URL": "http://127.0.0.1:9/from-environment",
        "OPENAI_ORG_ID": "from-environment",
        "OPENAI_PROJECT_ID": "from-environment",
        "OPENAI_CUSTOM_HEADERS": "Authorization: from-environment\nX-Custom: from-environment",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "ALL_PROXY": "http://127.0.0.1:9",
    }.items():
        monkeypatch.setenv(name, value)
    transport = SocketTransport(httpx2.URL(settings.base_url), tls=None, timeouts=Timeouts())
    with UpstreamClient(settings, tokens, transport) as client:
        send(client)
    entry = own_sandbox.last()
    assert entry["token"] == "valid"
    assert "from-environment" not in str(entry["headers"])
    names = sorted(name.lower() for name, _ in entry["headers"])
    assert names == ["accept", "accept-encoding", "authorization", "content-length", "host", "user-agent"]


def test_bytes_go_out_and_come_back_as_they_are(client: UpstreamClient, own_sandbox: SandboxClient) -> None:
    own_sandbox.faults(upstream=[{"kind": "reply", "body": ' {"odd" : 1.50}\n'}])
    assert send(client) == b' {"odd" : 1.50}\n'
    assert own_sandbox.last()["body"] == BODY


def test_an_error_status_becomes_an_upstream_answer_with_its_body(
    client: UpstreamClient, own_sandbox: SandboxClient
) -> None:
    own_sandbox.faults(upstream=[{"kind": "status", "status": 429, "body": '{"error": 1}'}])
    with pytest.raises(UpstreamAnswer) as caught:
        send(client)
    assert (caught.value.status, caught.value.body) == (429, b'{"error": 1}')
    assert len(own_sandbox.log()) == 1  # max_retries=0 holds


def test_a_redirect_is_not_followed(client: UpstreamClient, own_sandbox: SandboxClient) -> None:
    own_sandbox.faults(upstream=[{"kind": "redirect", "location": own_sandbox.url + "/v1/models"}])
    with pytest.raises(UpstreamUnavailable):
        send(client)
    assert len(own_sandbox.log()) == 1


def test_a_401_is_replayed_once_with_a_new_token(
    client: UpstreamClient, own_sandbox: SandboxClient, source: SandboxSource
) -> None:
    send(client)
    own_sandbox.revoke()
    assert b"choices" in send(client)
    assert source.fetches == 2
    assert [entry["token"] for entry in own_sandbox.log()] == ["valid", "revoked", "valid"]


def test_an_upstream_that_always_says_401_gets_one_replay_and_the_caller_a_502(
    client: UpstreamClient, own_sandbox: SandboxClient
) -> None:
    own_sandbox.faults(upstream=[{"kind": "refuse_token"}])
    with pytest.raises(UpstreamUnavailable):
        send(client)
    assert len(own_sandbox.log()) == 2


def test_the_async_client_sends_the_held_token_and_raises_a_refused_one(
    own_sandbox: SandboxClient, settings: UpstreamSettings, tokens: TokenHolder
) -> None:
    token = tokens.token()

    async def ask() -> bytes:
        transport = httpx2.AsyncHTTPTransport(trust_env=False)
        async with AsyncUpstreamClient(settings, tokens, transport) as client:
            return await client.send("/chat/completions", content=BODY, fields=[])

    assert b"choices" in asyncio.run(ask())
    assert own_sandbox.last()["body"] == BODY
    own_sandbox.revoke()
    with pytest.raises(RefusedToken) as caught:
        asyncio.run(ask())
    assert caught.value.token is token
