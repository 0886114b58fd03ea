import errno
import socket
import threading
from collections.abc import Callable

import httpx2
import pytest

from proxy.upstreams.exchange import Exchange
from tests.support.scripted_upstream import LIMIT_S, ScriptedUpstream, close, reset
from tests.support.upstream_sender import Sender

Senders = Callable[..., Sender]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
OPEN_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
FIRST_CHUNK = b"5\r\nfirst\r\n"
LAST_CHUNK = b"0\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n\r\n"
LIMIT = 100 * 1024


# The request


def test_request_leaves_as_head_and_body(upstream: ScriptedUpstream, sender: Sender) -> None:
    upstream.answer(OK)
    sender.send(content=b'{"model":"m"}')
    [received] = upstream.requests
    first, *fields = received.head.split(b"\r\n")
    assert first == b"POST /v1/chat HTTP/1.1"
    assert f"Host: {upstream.host}:{upstream.port}".encode() in fields
    assert b"Content-Length: 13" in fields
    assert received.body == b'{"model":"m"}'


def test_answer_has_its_status_its_fields_and_its_body(upstream: ScriptedUpstream, sender: Sender) -> None:
    upstream.answer(b"HTTP/1.1 429 Slow Down\r\nX-A: 1\r\nx-a: 2\r\nX-Latin: caf\xe9\r\nContent-Length: 2\r\n\r\nno")
    response = sender.response()
    assert response.status_code == 429
    assert response.headers.get_list("X-A") == ["1", "2"]
    assert (b"X-Latin", b"caf\xe9") in response.headers.raw
    assert response.read() == b"no"


# Kept connections


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(OK, id="content length"),
        pytest.param(OPEN_HEAD + FIRST_CHUNK + LAST_CHUNK, id="chunked"),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", id="no content"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", id="empty body"),
        pytest.param(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\nno", id="error"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" + OK, id="after an interim answer"),
        pytest.param(
            b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", id="asked for in 1.0"
        ),
    ],
)
def test_connection_is_used_again_after_a_whole_answer(
    upstream: ScriptedUpstream, sender: Sender, answer: bytes
) -> None:
    upstream.answer(answer)
    upstream.answer(OK)
    sender.fetch()
    assert sender.fetch() == b"ok"
    assert [received.connection for received in upstream.requests] == [0, 0]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", id="connection close"),
        pytest.param(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", id="HTTP/1.0"),
    ],
)
def test_connection_that_the_upstream_wants_closed_is_closed(
    upstream: ScriptedUpstream, sender: Sender, answer: bytes
) -> None:
    upstream.answer(answer)
    upstream.answer(OK)
    assert sender.fetch() == b"ok"
    upstream.wait_until_left(0)
    assert sender.fetch() == b"ok"
    assert [received.connection for received in upstream.requests] == [0, 1]


def test_connection_of_an_answer_that_was_not_read_whole_is_closed(upstream: ScriptedUpstream, sender: Sender) -> None:
    upstream.answer(OPEN_HEAD + FIRST_CHUNK)
    body = sender.send()
    assert body.read() == b"first"
    body.close()
    upstream.wait_until_left(0)


def test_requests_at_the_same_time_have_connections_of_their_own(upstream: ScriptedUpstream, sender: Sender) -> None:
    upstream.answer(OPEN_HEAD)
    upstream.answer(OK)
    sender.send()
    assert sender.fetch() == b"ok"
    assert [received.connection for received in upstream.requests] == [0, 1]


def test_answer_that_is_closed_twice_gives_its_connection_back_once(upstream: ScriptedUpstream, sender: Sender) -> None:
    for _ in range(3):
        upstream.answer(OK)
    body = sender.send()
    assert body.read() == b"ok"
    body.close()
    body.close()
    sender.send()
    sender.send()
    assert [received.connection for received in upstream.requests] == [0, 0, 1]


# Kept connections that the upstream has closed


@pytest.mark.parametrize("end", [close, reset])
def test_kept_connection_closed_while_idle_is_replaced(
    upstream: ScriptedUpstream, sender: Sender, end: Callable[[socket.socket], None]
) -> None:
    upstream.answer(OK, end)
    upstream.answer(OK)
    sender.fetch()
    upstream.wait_until_left(0)
    assert sender.fetch() == b"ok"
    assert [received.connection for received in upstream.requests] == [0, 1]


def test_kept_connection_with_bytes_that_nobody_asked_for_is_replaced(
    upstream: ScriptedUpstream, sender: Sender
) -> None:
    said, idle = threading.Event(), threading.Event()
    upstream.answer(OK, idle, b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n", lambda _: said.set())
    upstream.answer(OK)
    assert sender.fetch() == b"ok"
    idle.set()
    assert said.wait(LIMIT_S)
    assert sender.fetch() == b"ok"
    assert [received.connection for received in upstream.requests] == [0, 1]


class ActOnAttach(Exchange):
    """Acts when a connection has been chosen and nothing sent: the moment that no check of an idle one can cover."""

    def __init__(self, act: Callable[[], object]) -> None:
        super().__init__()
        self._acts = [act]

    def attach(self, break_off: Callable[[], None]) -> None:
        super().attach(break_off)
        while self._acts:
            self._acts.pop()()


def test_kept_connection_closed_just_before_the_request_is_replaced_and_the_request_arrives_once(
    upstream: ScriptedUpstream, sender: Sender
) -> None:
    upstream.answer(OK)
    upstream.answer(OK)
    sender.fetch()
    body = sender.send(exchange=ActOnAttach(upstream.close_connections))
    assert body.read() == b"ok"
    assert [received.connection for received in upstream.requests] == [0, 1]


def test_request_for_a_caller_who_has_gone_is_not_sent_a_second_time(
    upstream: ScriptedUpstream, sender: Sender
) -> None:
    upstream.answer(OK)
    sender.fetch()

    def both_go() -> None:
        upstream.close_connections()
        exchange.break_off()

    exchange = ActOnAttach(both_go)
    with pytest.raises(httpx2.ReadError):
        sender.send(exchange=exchange)
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("end", [close, reset])
def test_request_that_was_read_on_a_kept_connection_and_not_answered_is_not_sent_again(
    upstream: ScriptedUpstream, sender: Sender, end: Callable[[socket.socket], None]
) -> None:
    upstream.answer(OK)
    upstream.answer(end)
    upstream.answer(OK)
    sender.fetch()
    with pytest.raises(httpx2.ReadError):
        sender.send()
    assert [received.connection for received in upstream.requests] == [0, 0]


@pytest.mark.parametrize("end", [close, reset])
def test_request_on_a_new_connection_that_is_not_answered_is_not_sent_again(
    upstream: ScriptedUpstream, sender: Sender, end: Callable[[socket.socket], None]
) -> None:
    upstream.answer(end)
    with pytest.raises(httpx2.ReadError):
        sender.send()
    assert len(upstream.requests) == 1


def test_request_is_sent_again_once_only(upstream: ScriptedUpstream, sender: Sender) -> None:
    upstream.answer(OK)
    upstream.answer(close)
    sender.fetch()
    with pytest.raises(httpx2.ReadError):
        sender.send(exchange=ActOnAttach(upstream.close_connections))
    assert [received.connection for received in upstream.requests] == [0, 1]


# Breaking off


def run(act: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=act)
    thread.start()
    return thread


def test_break_off_ends_the_wait_for_the_head(upstream: ScriptedUpstream, sender: Sender) -> None:
    exchange = Exchange()

    def caller_goes() -> None:
        upstream.wait_for_requests(1)
        exchange.break_off()

    thread = run(caller_goes)
    with pytest.raises(httpx2.ReadError):
        sender.send(exchange=exchange)
    thread.join()
    upstream.wait_until_left(0)
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(OPEN_HEAD + FIRST_CHUNK, id="chunked"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nfirst", id="content length"),
        pytest.param(UNTIL_CLOSE + b"first", id="until the connection closes"),
    ],
)
def test_break_off_in_the_body_is_an_error_and_no_end(upstream: ScriptedUpstream, sender: Sender, head: bytes) -> None:
    exchange = Exchange()
    upstream.answer(head)
    body = sender.send(exchange=exchange)
    assert body.read() == b"first"
    thread = run(exchange.break_off)
    with pytest.raises((httpx2.ReadError, httpx2.RemoteProtocolError)):
        body.read()
    thread.join()
    upstream.wait_until_left(0)


def test_break_off_before_the_request_sends_nothing(upstream: ScriptedUpstream, sender: Sender) -> None:
    exchange = Exchange()
    exchange.break_off()
    with pytest.raises(httpx2.ReadError):
        sender.send(exchange=exchange)
    upstream.wait_until_left(0)
    assert upstream.requests == []


def test_break_off_after_the_end_leaves_the_kept_connection_alone(upstream: ScriptedUpstream, sender: Sender) -> None:
    exchange = Exchange()
    upstream.answer(OK)
    upstream.answer(OK)
    body = sender.send(exchange=exchange)
    assert b"".join(body) == b"ok"
    exchange.break_off()
    assert sender.fetch() == b"ok"
    assert len(upstream.connections) == 1


def test_connection_of_an_answer_that_was_broken_off_is_not_kept(upstream: ScriptedUpstream, sender: Sender) -> None:
    exchange = Exchange()
    upstream.answer(OK)
    body = sender.send(exchange=exchange)
    exchange.break_off()
    body.close()
    upstream.wait_until_left(0)


# Where no connection is to be had


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        return int(closed.getsockname()[1])


def test_refused_connection_is_a_connect_error(sender_to: Senders) -> None:
    with pytest.raises(httpx2.ConnectError):
        sender_to(f"http://127.0.0.1:{free_port()}").send()


def test_host_without_an_address_is_a_connect_error(sender_to: Senders) -> None:
    with pytest.raises(httpx2.ConnectError):
        sender_to("http://" + "a" * 64 + ".test").send()  # a label of DNS has at most 63


def test_ipv6_address_is_reached(sender_to: Senders) -> None:
    try:
        upstream = ScriptedUpstream("::1")
    except OSError as error:
        if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            raise
        pytest.skip("this machine has no IPv6")
    with upstream:
        upstream.answer(OK)
        assert sender_to(upstream.url).fetch() == b"ok"
        assert f"Host: [::1]:{upstream.port}".encode() in upstream.requests[0].head.split(b"\r\n")


# An answer before the request is through


def test_answer_that_comes_while_a_long_body_is_sent_is_read(sender_to: Senders) -> None:
    refusal = b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno"
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse() -> None:
            sock, _ = listener.accept()
            with sock:
                sock.recv(1000)
                sock.sendall(refusal)

        thread = run(refuse)
        response = sender_to(f"http://127.0.0.1:{listener.getsockname()[1]}").response(content=bytes(32 * 1024 * 1024))
        thread.join()
    assert response.status_code == 413
    assert response.read() == b"no"
