"""What the async client leaves aside; what it sends and answers is shown with split embeddings, end to end."""

import asyncio
import threading
from collections.abc import AsyncIterator

import httpx2
import pytest

from proxy.errors import UpstreamAnswer
from proxy.upstreams.answer_body import ERROR_BODY_MOST_BYTES
from proxy.upstreams.client import AsyncUpstreamClient
from proxy.upstreams.request_builder import UpstreamSettings


class Unread(httpx2.AsyncByteStream):
    """A body that comes when it is asked for, as from a network."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"{}"


def test_request_starts_no_thread() -> None:
    # Python would wait for its end when the worker exits; under gevent that took 10 s.
    before = set(threading.enumerate())

    async def ask() -> tuple[bytes, set[threading.Thread]]:
        settings = UpstreamSettings(base_url="http://upstream/v1")
        transport = httpx2.MockTransport(lambda _: httpx2.Response(200, stream=Unread()))
        client = AsyncUpstreamClient(settings, None, transport)
        answer = await client.send("/embeddings", content=b"{}", fields=[])
        return answer, set(threading.enumerate()) - before

    assert asyncio.run(ask()) == (b"{}", set())


class Endless(httpx2.AsyncByteStream):
    """A body without an end; counts what is read of it."""

    def __init__(self) -> None:
        self.read_bytes = 0
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self.read_bytes < 100 * ERROR_BODY_MOST_BYTES:
            self.read_bytes += 1024
            yield b"x" * 1024

    async def aclose(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    ("fields", "most_bytes"), [({}, ERROR_BODY_MOST_BYTES + 1024), ({"Content-Encoding": "gzip"}, 0)], ids=str
)
def test_of_an_error_no_more_is_read_than_can_be_handed_on(fields: dict[str, str], most_bytes: int) -> None:
    body = Endless()
    transport = httpx2.MockTransport(lambda _: httpx2.Response(400, headers=fields, stream=body))
    client = AsyncUpstreamClient(UpstreamSettings(base_url="http://upstream/v1"), None, transport)
    with pytest.raises(UpstreamAnswer) as caught:
        asyncio.run(client.send("/embeddings", content=b"{}", fields=[]))
    assert (caught.value.status, caught.value.body) == (400, b"")
    assert (body.read_bytes, body.closed) == (most_bytes, True)


def test_error_is_handed_on_with_its_fields_and_its_body() -> None:
    answer = httpx2.Response(429, headers={"Retry-After": "7"}, stream=Unread())
    client = AsyncUpstreamClient(
        UpstreamSettings(base_url="http://upstream/v1"), None, httpx2.MockTransport(lambda _: answer)
    )
    with pytest.raises(UpstreamAnswer) as caught:
        asyncio.run(client.send("/embeddings", content=b"{}", fields=[]))
    assert (caught.value.status, caught.value.body) == (429, b"{}")
    assert ("Retry-After", "7") in caught.value.fields
