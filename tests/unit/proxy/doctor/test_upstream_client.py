import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest

from config import Settings
from proxy.doctor.upstream_client import DoctorClient
from proxy.tokens.token import Token
from tests.support.scripted_upstream import ScriptedUpstream, close

_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
_TOKEN = Token("s3cret-mark-1", fetched_at=0.0, lifetime_s=300.0, generation=1)


@pytest.fixture
def client_of(settings_of: Callable[..., Settings], server: ScriptedUpstream) -> Iterator[Callable[..., DoctorClient]]:
    clients: list[DoctorClient] = []

    def client_of(token: Token | None = _TOKEN, **members: Any) -> DoctorClient:
        settings = settings_of(upstreams=[{"name": "llm", "base_url": f"{server.url}/v1", **members}])
        clients.append(DoctorClient(settings.upstreams[0], token))
        return clients[-1]

    yield client_of
    for client in clients:
        client.close()


def test_request_is_the_proxys_own(client_of: Callable[..., DoctorClient], server: ScriptedUpstream) -> None:
    server.answer(_OK)
    client = client_of(
        headers={"X-App-Id": "app"},
        token_header="X-Token",
        token_prefix="",
        strip_fields=["drop"],
        set_fields={"user": "doctor"},
    )
    client.post("/chat/completions", {"model": "m", "drop": 1})
    [request] = server.requests
    head = request.head.decode().split("\r\n")
    assert head[0] == "POST /v1/chat/completions HTTP/1.1"
    assert {
        "X-App-Id: app",
        "X-Token: s3cret-mark-1",
        "User-Agent: llm-proxy",
        "Content-Type: application/json",
    } <= set(head)
    assert json.loads(request.body) == {"model": "m", "user": "doctor"}


def test_no_token_is_sent_where_there_is_none(client_of: Callable[..., DoctorClient], server: ScriptedUpstream) -> None:
    server.answer(_OK)
    client_of(token=None).get("/models")
    assert b"authorization" not in server.requests[0].head.lower()


@pytest.mark.parametrize("status", [200, 401, 404, 500])
def test_answer_of_any_status_comes_whole_and_is_not_replayed(
    client_of: Callable[..., DoctorClient], server: ScriptedUpstream, status: int
) -> None:
    server.answer(b"HTTP/1.1 %d Status\r\nWWW-Authenticate: Bearer\r\nContent-Length: 4\r\n\r\nbody" % status)
    answer = client_of().get("/models")
    assert (answer.status, answer.body, answer.fields["WWW-Authenticate"]) == (status, b"body", "Bearer")
    assert answer.took_s > 0
    assert len(server.requests) == 1


def test_good_stream_comes_unread(client_of: Callable[..., DoctorClient], server: ScriptedUpstream) -> None:
    server.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody")
    answer = client_of().post("/chat/completions", {"model": "m", "stream": True})
    assert answer.stream is not None
    assert (answer.body, answer.stream.read()) == (b"", b"body")
    answer.stream.close()


def test_refused_stream_comes_whole(client_of: Callable[..., DoctorClient], server: ScriptedUpstream) -> None:
    server.answer(b"HTTP/1.1 400 Bad\r\nContent-Length: 4\r\n\r\nbody")
    answer = client_of().post("/chat/completions", {"model": "m", "stream": True})
    assert (answer.body, answer.stream) == (b"body", None)


def test_body_cut_short_is_an_error(client_of: Callable[..., DoctorClient], server: ScriptedUpstream) -> None:
    server.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nbody", close)
    with pytest.raises(httpx2.RemoteProtocolError):
        client_of().get("/models")


def test_config_decides_the_longest_waits(client_of: Callable[..., DoctorClient], server: ScriptedUpstream) -> None:
    server.answer()
    with pytest.raises(httpx2.ReadTimeout):
        client_of(timeouts={"first_byte_s": 0.1}).get("/models")
