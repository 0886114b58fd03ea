"""What an upstream can do wrong before or instead of an answer, and around its size and its packing.

What is shown elsewhere: errors, nonsense and time-outs that need no more than a status in test_errors and
test_error_table, streams that break off in test_streams, odd but good answers in test_odd_answers, answers whose end is
in doubt in test_upstream_desync, the bytes of streams in test_upstream_streams.
"""

import base64
import socket
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.support.always_true import BODY, CHAT, always_true
from tests.support.proxy_process import ProxyFarm, ProxyProcess
from tests.support.raw_http import RawCaller, status_of
from tests.support.sandbox_client import SandboxClient
from tests.support.worker_memory import WorkerMemory

MIB = 1024 * 1024
BOMB_MIB = 300
UNREAD = 10
FRAME = b'data: {"choices":[{"delta":{"content":"Hi"},"finish_reason":null}]}\n\n'
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
BROKE_OFF = b'data: {"error": {"message": "The upstream stream broke off."'


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """300 MiB of blanks in some 300 KB of gzip."""
    packer = zlib.compressobj(9, wbits=zlib.MAX_WBITS | 16)
    return b"".join([packer.compress(b" " * MIB) for _ in range(BOMB_MIB)]) + packer.flush()


@pytest.fixture(scope="module")
def black_hole() -> Iterator[int]:
    """A port where connections are neither made nor refused."""
    with socket.socket() as full, socket.socket() as waiting:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting.connect(full.getsockname())  # the queue holds no more than this one
        yield full.getsockname()[1]


# No connection


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_upstream_whose_name_has_no_address_is_502(
    farm: ProxyFarm, sandbox: SandboxClient, worker_class: str, streamed: bool
) -> None:
    upstream = {"base_url": "http://nobody.invalid/v1"}  # RFC 6761 §6.4: never has one
    proxy = farm.proxy(sandbox.config(server={"worker_class": worker_class}, upstream=upstream))
    with always_true(proxy, sandbox) as watch:
        answer = watch.chat(stream=streamed)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_unavailable")


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_upstream_that_takes_no_connection_is_504_at_the_limit_for_connections(
    farm: ProxyFarm, sandbox: SandboxClient, worker_class: str, black_hole: int, streamed: bool
) -> None:
    timeouts = {"connect_s": 0.5, "first_byte_s": 15, "idle_s": 15, "total_s": 30}
    upstream = {"base_url": f"http://127.0.0.1:{black_hole}/v1", "timeouts": timeouts}
    proxy = farm.proxy(sandbox.config(server={"worker_class": worker_class}, upstream=upstream))
    with always_true(proxy, sandbox) as watch:
        answer = watch.chat(stream=streamed)
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "upstream_timeout")
    assert answer.elapsed.total_seconds() < 10  # so it was none of the other limits


# Something else than what was asked for


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({"kind": "reply", "content_type": "text/html", "body": "<html>Log in</html>"}, id="HTML"),
        pytest.param({"kind": "reply", "body": '{"object":"list","data":[]}'}, id="JSON that is no completion"),
        pytest.param({"kind": "reply", "body": ""}, id="nothing"),
        pytest.param({"kind": "reply", "content_type": "text/plain", "body": "data: {}\n\n"}, id="frames called text"),
        pytest.param({"kind": "status", "status": 204}, id="204"),
        *[
            pytest.param({"kind": "redirect", "location": "http://127.0.0.1:1/v1", "status": status}, id=str(status))
            for status in (301, 302, 303, 307, 308)
        ],
        pytest.param({"kind": "status", "status": 304}, id="304"),
        pytest.param({"kind": "gzip"}, id="gzip"),
        pytest.param({"kind": "reset"}, id="reset"),
        pytest.param({"kind": "close"}, id="close"),
    ],
)
def test_what_is_no_stream_where_one_was_asked_for_is_502(
    proxy: ProxyProcess, sandbox: SandboxClient, fault: dict[str, Any]
) -> None:
    with always_true(proxy, sandbox) as watch:
        sandbox.faults(upstream=[fault])
        answer = watch.chat(stream=True)
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_unavailable")
        assert "Location" not in answer.headers
        assert len(sandbox.log()) == 1
        sandbox.faults(upstream=[])
        assert watch.chat(stream=True).content.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("given", "crosses"),
    [
        ("0", True),
        ("86400", True),
        ("86401", False),
        ("1000000000", False),
        ("-1", False),
        ("1.5", False),
        ("soon", False),
        ("", False),
        ("Thu, 01 Jan 2099 00:00:00 GMT", False),
        ("Thu, 01 Jan 2015 00:00:00 GMT", True),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_crosses_where_a_caller_can_do_something_with_it(
    proxy: ProxyProcess, sandbox: SandboxClient, status: int, given: str, crosses: bool
) -> None:
    fault = {"kind": "status", "status": status, "body": '{"error":{}}', "headers": {"Retry-After": given}}
    sandbox.faults(upstream=[fault])
    with always_true(proxy, sandbox) as watch:
        answer = watch.chat()
    assert answer.status_code == status
    assert answer.headers.get("Retry-After") == (given if crosses else None)
    assert len(sandbox.log()) == 1


def test_packed_401_is_a_refused_token_all_the_same(
    farm: ProxyFarm, own_sandbox: SandboxClient, worker_class: str
) -> None:
    proxy = farm.proxy(own_sandbox.config(server={"worker_class": worker_class}))
    with always_true(proxy, own_sandbox) as watch:
        assert watch.chat().status_code == 200
        own_sandbox.revoke()
        own_sandbox.faults(upstream=[{"kind": "gzip", "times": 1}])
        assert watch.chat(stream=True).content.endswith(b"data: [DONE]\n\n")
        assert own_sandbox.state()["fetches"] == 2


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
def test_packed_error_becomes_ours_with_its_status(proxy: ProxyProcess, sandbox: SandboxClient, status: int) -> None:
    fields = {"Retry-After": "7", "Content-Encoding": "gzip"}
    sandbox.faults(upstream=[{"kind": "status", "status": status, "body": "packed", "headers": fields}])
    with always_true(proxy, sandbox) as watch:
        answer = watch.chat()
    assert (answer.status_code, answer.headers["Retry-After"]) == (status, "7")
    assert answer.json()["error"]["type"] == ("server_error" if status >= 500 else "invalid_request_error")
    assert "Content-Encoding" not in answer.headers
    assert len(sandbox.log()) == 1


# In the middle of a stream


@pytest.mark.parametrize(
    ("field", "body", "rest"),
    [
        pytest.param(b"Content-Length: 1000", FRAME, b"", id="a length that is not reached"),
        pytest.param(b"Content-Length: 1000", FRAME, FRAME[:20], id="a length that is not reached, in a frame"),
        pytest.param(b"Transfer-Encoding: chunked", b"%x\r\n%b\r\n" % (len(FRAME), FRAME), b"", id="no last chunk"),
        pytest.param(b"Transfer-Encoding: chunked", b"%x\r\n%b\r\n" % (len(FRAME), FRAME), b"zz\r\n", id="a bad chunk"),
        pytest.param(b"Transfer-Encoding: chunked", b"fff\r\n" + FRAME, FRAME[:20], id="half a chunk"),
        pytest.param(b"Connection: close", FRAME, FRAME[:20], id="neither, in a frame"),
    ],
)
def test_stream_that_is_cut_short_gives_whole_frames_and_one_error_event(
    proxy: ProxyProcess, sandbox: SandboxClient, field: bytes, body: bytes, rest: bytes
) -> None:
    with always_true(proxy, sandbox) as watch:
        sandbox.raw(STREAM_HEAD + field + b"\r\n\r\n" + body, rest, pause_ms=100)
        stream = watch.chat(stream=True).content
    assert stream.startswith(FRAME + BROKE_OFF)
    assert stream.count(b"\n\n") == 2
    assert b"[DONE]" not in stream


# Sizes


@pytest.mark.parametrize("content_type", ["application/json", "text/event-stream"])
def test_packed_answer_of_300_mib_is_502_and_takes_no_memory(
    proxy: ProxyProcess, sandbox: SandboxClient, bomb: bytes, content_type: str
) -> None:
    assert len(bomb) < MIB / 2
    fields = {"Content-Type": content_type, "Content-Encoding": "gzip"}
    body = {"base64": base64.b64encode(bomb).decode()}
    with always_true(proxy, sandbox) as watch:
        watch.chat()
        memory = WorkerMemory(proxy)
        sandbox.faults(upstream=[{"kind": "reply", "body": body, "headers": fields}])
        assert watch.chat(stream=content_type != "application/json").status_code == 502
        assert watch.ask("/v1/embeddings", json={"model": "e", "input": "x"}).status_code == 502
    assert memory.growth_at_most() < 10 * MIB


def test_packed_answer_of_300_mib_to_a_split_embedding_is_502_and_takes_no_memory(
    farm: ProxyFarm, sandbox: SandboxClient, worker_class: str, bomb: bytes
) -> None:
    upstream = {"embeddings": {"max_batch": 2}}
    proxy = farm.proxy(sandbox.config(server={"worker_class": worker_class}, upstream=upstream))
    body = {"base64": base64.b64encode(bomb).decode()}
    question = {"model": "e", "input": ["a", "b", "c"]}
    with always_true(proxy, sandbox, kept=4) as watch:
        assert watch.ask("/v1/embeddings", json=question).status_code == 200
        memory = WorkerMemory(proxy)
        sandbox.faults(upstream=[{"kind": "reply", "body": body, "headers": {"Content-Encoding": "gzip"}}])
        assert watch.ask("/v1/embeddings", json=question).status_code == 502
    assert memory.growth_at_most() < 10 * MIB


def test_error_of_64_mib_becomes_ours_and_takes_no_memory(proxy: ProxyProcess, sandbox: SandboxClient) -> None:
    with always_true(proxy, sandbox) as watch:
        watch.chat()
        memory = WorkerMemory(proxy)
        head = b"HTTP/1.1 500 Oh\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (64 * MIB)
        sandbox.raw(head, *[b" " * MIB] * 64)
        answer = watch.chat()
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "upstream_error")
    assert memory.growth_at_most() < 10 * MIB


def test_large_answers_that_nobody_reads_are_held_once(
    farm: ProxyFarm, sandbox: SandboxClient, worker_class: str
) -> None:
    """8 MiB of each: what is read before its head goes out."""
    timeouts = {"first_byte_s": 15, "idle_s": 15, "total_s": 30}  # the sandbox takes its time for so much
    proxy = farm.proxy(sandbox.config(server={"worker_class": worker_class}, upstream={"timeouts": timeouts}))
    with always_true(proxy, sandbox, kept=UNREAD) as watch, ExitStack() as stack:
        watch.chat()
        memory = WorkerMemory(proxy)
        sandbox.faults(upstream=[{"kind": "reply", "body": "x" * MIB, "repeat": 16}])
        callers = [stack.enter_context(RawCaller(proxy.port)) for _ in range(UNREAD)]
        for caller in callers:
            caller.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            caller.post(CHAT, BODY, f"X-Request-Id: {watch.request_id()}")
        for caller in callers:
            assert status_of(caller.read_until(b"\r\n\r\n")) == 200
        assert memory.growth_at_most() < (UNREAD + 1) * 10 * MIB
