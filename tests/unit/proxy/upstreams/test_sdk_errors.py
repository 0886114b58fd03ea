"""Which errors say that nothing was begun, by the real chains of both clients; what becomes of answers is shown in
test_async_client and end to end."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx2
import pytest

from proxy.errors import ProxyError
from proxy.upstreams.answer_body import Timeouts
from proxy.upstreams.client import AsyncUpstreamClient, UpstreamClient
from proxy.upstreams.exchange import Exchange
from proxy.upstreams.request_builder import UpstreamSettings
from proxy.upstreams.transport import SocketTransport
from tests.support.scripted_upstream import ScriptedUpstream, close, reset

HOST = "upstream.test"
TIMEOUTS = Timeouts(0.3, 0.3, 0.3, 0.3)
Address = tuple[str, int]
Ask = Callable[[str], None]


def ask(url: str) -> None:
    settings = UpstreamSettings(url, timeouts=TIMEOUTS)
    with UpstreamClient(settings, None, SocketTransport(httpx2.URL(url), tls=None, timeouts=TIMEOUTS)) as client:
        client.send("POST", "/embeddings", content=b"{}", fields=[], exchange=Exchange())


def ask_async(url: str) -> None:
    async def send() -> None:
        transport = httpx2.AsyncHTTPTransport(trust_env=False)
        async with AsyncUpstreamClient(UpstreamSettings(url, timeouts=TIMEOUTS), None, transport) as client:
            await client.send("/embeddings", content=b"{}", fields=[])

    asyncio.run(send())


@pytest.fixture(params=[ask, ask_async], ids=["sync", "async"])
def ask_either(request: pytest.FixtureRequest) -> Ask:
    chosen: Ask = request.param
    return chosen


@pytest.fixture(scope="module")
def places() -> Iterator[dict[str, Address]]:
    """A port that refuses, one that is a black hole, and an address that no connection can be made to."""
    with ExitStack() as stack:
        refusing, full, waiting = (stack.enter_context(socket.socket()) for _ in range(3))
        refusing.bind(("127.0.0.1", 0))
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting.connect(full.getsockname())  # the queue holds no more than this one
        yield {
            "refuses": refusing.getsockname(),
            "black hole": full.getsockname(),
            "out of reach": ("255.255.255.255", refusing.getsockname()[1]),
        }


def takes_nobody(ask: Ask, url: str) -> bool:
    with pytest.raises(ProxyError) as caught:
        ask(url)
    return caught.value.takes_nobody


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        pytest.param(["refuses"], True, id="refuses"),
        pytest.param(["refuses", "refuses"], True, id="two that refuse"),
        pytest.param(["refuses", "out of reach"], True, id="the other is out of reach"),
        pytest.param(["out of reach", "refuses"], True, id="the first is out of reach"),
        pytest.param(["out of reach"], False, id="out of reach"),
        pytest.param(["out of reach", "out of reach"], False, id="two out of reach"),
        pytest.param(["black hole"], False, id="black hole"),
    ],
)
def test_host_takes_nobody_where_one_of_its_addresses_refuses_and_none_is_silent(
    ask_either: Ask, places: dict[str, Address], monkeypatch: pytest.MonkeyPatch, names: list[str], expected: bool
) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", places[name]) for name in names]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    port = places["black hole" if "black hole" in names else "refuses"][1]
    assert takes_nobody(ask_either, f"http://{HOST}:{port}/v1") is expected


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_refused_connection_is_known_by_every_kind_of_name(
    ask_either: Ask, places: dict[str, Address], host: str
) -> None:
    assert takes_nobody(ask_either, f"http://{host}:{places['refuses'][1]}/v1")


def test_name_that_has_no_address_is_no_refusal(ask_either: Ask) -> None:
    assert not takes_nobody(ask_either, "http://nobody.invalid/v1")


def test_refusal_after_the_certificate_is_missing_is_none() -> None:
    error = httpx2.ConnectError("FileNotFoundError")
    error.__cause__ = FileNotFoundError()
    transport = httpx2.MockTransport(lambda _: (_ for _ in ()).throw(error))
    client = AsyncUpstreamClient(UpstreamSettings("http://upstream/v1"), None, transport)
    with pytest.raises(ProxyError) as caught:
        asyncio.run(client.send("/embeddings", content=b"{}", fields=[]))
    assert not caught.value.takes_nobody


ANSWERS = {
    "429": (b"HTTP/1.1 429 No\r\nContent-Length: 0\r\n\r\n", True),
    "503": (b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", True),
    "500": (b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", False),
    "502": (b"HTTP/1.1 502 No\r\nContent-Length: 0\r\n\r\n", False),
    "504": (b"HTTP/1.1 504 No\r\nContent-Length: 0\r\n\r\n", False),
    "401": (b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n", False),
    "307": (b"HTTP/1.1 307 No\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", False),
}


@pytest.mark.parametrize(("answer", "expected"), ANSWERS.values(), ids=ANSWERS)
def test_answer_says_that_nothing_was_begun_by_its_status(
    ask_either: Ask, upstream: ScriptedUpstream, answer: bytes, expected: bool
) -> None:
    upstream.answer(answer, close)
    assert takes_nobody(ask_either, f"{upstream.url}/v1") is expected


@pytest.mark.parametrize("end", [close, reset], ids=["closed", "reset"])
def test_connection_that_breaks_is_no_refusal(
    ask_either: Ask, upstream: ScriptedUpstream, end: Callable[[socket.socket], None]
) -> None:
    upstream.answer(end)
    assert not takes_nobody(ask_either, f"{upstream.url}/v1")


def test_silence_is_no_refusal(ask_either: Ask, upstream: ScriptedUpstream) -> None:
    assert not takes_nobody(ask_either, f"{upstream.url}/v1")
