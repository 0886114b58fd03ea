"""What an adapted answer does with the reads beneath it. Requests through both clients: tests/e2e/test_adapters.py."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from proxy.adapters import AdaptedRequest, Adapter
from proxy.adapters.call import CHAT, AdaptedCall
from proxy.adapters.find import find_adapter
from proxy.errors import InvalidRequest, RouteNotFound, UpstreamAnswer, UpstreamUnavailable
from proxy.upstreams.adapted_client import AdaptedClient, AdaptedStream
from proxy.upstreams.answer_body import Timeouts
from proxy.upstreams.content import StreamedContent
from proxy.upstreams.exchange import Exchange
from proxy.upstreams.request_builder import KEPT_MOST, UpstreamSettings
from proxy.upstreams.transport import SocketTransport
from tests.support.plain_sse_server import PlainSseServer

EVENT = b'data: {"text": "a"}\n\n'


class FakeAnswer:
    """An upstream's answer as a list of what its reads give; it notes how long each was to wait."""

    status = 200
    fields = (("Content-Type", "text/event-stream"), ("X-Request-Id", "r"))

    def __init__(self, *reads: bytes | None) -> None:
        self._reads = list(reads)
        self.waits: list[float | None] = []
        self.closed = 0

    def read(self, wait_s: float | None = None, at_least: int = 1) -> bytes | None:
        self.waits.append(wait_s)
        return self._reads.pop(0)

    def close(self) -> None:
        self.closed += 1


def stream_of(*reads: bytes | None) -> tuple[AdaptedStream, FakeAnswer]:
    adapter = find_adapter("plain_sse", Path())
    body = b'{"model": "m", "stream": true, "messages": [{"role": "user", "content": "a"}]}'
    answer: Any = FakeAnswer(*reads)
    return AdaptedStream(answer, AdaptedCall(adapter, CHAT, body)), answer


def test_read_gives_frames_and_then_the_end() -> None:
    stream, _ = stream_of(EVENT[:9], EVENT[9:], b"")
    assert b'"content": "a"' in (stream.read() or b"")
    assert (stream.read() or b"").endswith(b"data: [DONE]\n\n")
    assert (stream.read(), stream.read()) == (b"", b"")
    assert stream.fields == [("X-Request-Id", "r"), ("Content-Type", "text/event-stream")]


def test_what_makes_no_frame_does_not_prolong_the_wait() -> None:
    stream, answer = stream_of(b": ping\n\n", b": ping\n\n", None)
    assert stream.read(30) is None
    first, second, third = answer.waits
    assert 30 >= first > second > third > 0


def test_wait_that_is_over_ends_though_pings_keep_coming() -> None:
    stream, answer = stream_of(*[b": ping\n\n"] * 3)
    assert stream.read(0) is None
    assert answer.waits == []


def test_event_that_cannot_be_read_closes_the_upstream() -> None:
    stream, answer = stream_of(b"data: odd\n\n")
    with pytest.raises(UpstreamUnavailable):
        stream.read()
    assert answer.closed == 1


class PathOfModel(Adapter):
    def chat_request(self, body: dict[str, Any]) -> AdaptedRequest:
        return AdaptedRequest(f"/{body['model']}", {"query": "a"})

    def chat_answer(self, body: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
        return {"choices": []}


@pytest.fixture
def client() -> Iterator[AdaptedClient]:
    with PlainSseServer() as server:
        settings = UpstreamSettings(server.url)
        transport = SocketTransport(httpx2.URL(server.url), tls=None, timeouts=Timeouts())
        with AdaptedClient(settings, None, transport, PathOfModel()) as client:
            yield client


def test_paths_that_callers_choose_are_not_kept_without_end(client: AdaptedClient) -> None:
    for number in range(KEPT_MOST + 1):
        with pytest.raises(UpstreamAnswer) as caught:
            client.send("POST", CHAT, content=b'{"model": "m%d"}' % number, fields=[], exchange=Exchange())
        assert caught.value.status == 404
    assert len(client._prepared) == len(client._builder._urls) == len(client._builder._heads) == 1


@pytest.mark.parametrize("model", ["../../../admin/delete#", "a" * 70_000], ids=["elsewhere", "too long for a URL"])
def test_model_that_would_be_another_path_is_refused(client: AdaptedClient, model: str) -> None:
    content = json.dumps({"model": model}).encode()
    with pytest.raises(InvalidRequest):
        client.send("POST", CHAT, content=content, fields=[], exchange=Exchange())


def test_upload_is_no_route_of_an_adapter(client: AdaptedClient) -> None:
    content = StreamedContent(lambda: iter([b"a"]))
    with pytest.raises(RouteNotFound):
        client.send("POST", "/audio/transcriptions", content=content, fields=[], exchange=Exchange())
