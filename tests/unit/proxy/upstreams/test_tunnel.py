import socket
import threading
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx2
import pytest

from proxy.upstreams.connection import ConnectionPool
from proxy.upstreams.tls import ClientTls
from proxy.upstreams.tunnel import HEAD_MOST_BYTES, TunnelError, connect_request, proxy_address, read_answer
from tests.support.authority import Authority
from tests.support.forward_proxy import ESTABLISHED, ForwardProxy, dripping
from tests.support.scripted_upstream import LIMIT_S, ScriptedUpstream, close, reset
from tests.support.tls_front import TlsFront

HOST, PORT = "llm.example.com", 443

Pools = Callable[..., ConnectionPool]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def pool_by() -> Iterator[Pools]:
    """Pools of connections to an upstream through the proxy at a URL."""
    with ExitStack() as stack:

        def pool_by(
            url: str, host: str = HOST, port: int = PORT, *, connect_s: float = LIMIT_S, tls: ClientTls | None = None
        ) -> ConnectionPool:
            proxy = httpx2.Proxy(url)
            pool = ConnectionPool(host, port, tls=tls, connect_s=connect_s, http_proxy=lambda: proxy)
            stack.callback(pool.close)
            return pool

        yield pool_by


# What is asked


@pytest.mark.parametrize(
    ("host", "port", "target"),
    [
        ("llm.example.com", 443, b"llm.example.com:443"),
        ("10.0.0.1", 8000, b"10.0.0.1:8000"),
        ("fd00::1", 443, b"[fd00::1]:443"),
        ("llm_server", 80, b"llm_server:80"),
        ("b\xfccher.example", 443, b"xn--bcher-kva.example:443"),
    ],
)
def test_target_is_host_and_port_and_stands_in_host_too(host: str, port: int, target: bytes) -> None:
    request = connect_request(httpx2.Proxy("http://p:1"), host, port)
    assert request == b"CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n" % (target, target)


@pytest.mark.parametrize(
    ("userinfo", "field"),
    [
        ("Aladdin:open%20sesame", b"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),  # RFC 7617 §2
        ("test:123%C2%A3", b"Basic dGVzdDoxMjPCow=="),  # RFC 7617 §2.1
        ("a:b:c", b"Basic YTpiOmM="),
        ("a:%40%2F%25%3A", b"Basic YTpALyU6"),
        ("user", b"Basic dXNlcjo="),
        (":word", b"Basic OndvcmQ="),
    ],
)
def test_user_and_password_are_sent_as_basic(userinfo: str, field: bytes) -> None:
    request = connect_request(httpx2.Proxy(f"http://{userinfo}@p:1"), HOST, PORT)
    assert request.split(b"\r\n")[2:] == [b"Proxy-Authorization: " + field, b"", b""]


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://proxy.example.com:3128", ("proxy.example.com", 3128)),
        ("http://proxy.example.com:80", ("proxy.example.com", 80)),
        ("http://[::1]:8080/", ("::1", 8080)),
        ("http://xn--bcher-kva.example:1", ("xn--bcher-kva.example", 1)),
    ],
)
def test_address_of_the_proxy(url: str, address: tuple[str, int]) -> None:
    assert proxy_address(httpx2.Proxy(url)) == address


# What is answered


@pytest.mark.parametrize(
    ("received", "answer"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n", (200, b""), id="no-fields"),
        pytest.param(b"HTTP/1.0 200 Connection established\r\nVia: a\r\n\r\n", (200, b""), id="1.0"),
        pytest.param(b"HTTP/1.1 204\r\n\r\n", (204, b""), id="no-reason"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", (200, b""), id="length-that-means-nothing"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\nx", (200, b"x"), id="more"),
        pytest.param(b"HTTP/1.1 407 Who\r\nA: b\r\n\r\n<html>", (407, b"<html>"), id="refusal-with-a-body"),
        pytest.param(b"HTTP/1.1 100 Go on\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", (200, b""), id="100-before"),
        pytest.param(
            b"HTTP/1.1 102 a\r\n\r\nHTTP/1.1 103 b\r\nA: b\r\n\r\nHTTP/1.1 403 c\r\n\r\n", (403, b""), id="102"
        ),
        pytest.param(b"", None, id="nothing"),
        pytest.param(b"HTTP/1.1 200 OK\r\nA: b\r\n", None, id="half-a-head"),
        pytest.param(b"HTTP/1.1 100 Go on\r\n\r\n", None, id="100-alone"),
        pytest.param(b"HTTP/1.1 200 OK\n\n", None, id="line-feeds-alone"),
    ],
)
def test_answer_is_read_up_to_its_head(received: bytes, answer: tuple[int, bytes] | None) -> None:
    assert read_answer(received) == answer


@pytest.mark.parametrize(
    "head",
    [b"SSH-2.0-x", b"HTTP/2 200", b"HTTP/1.1 20 OK", b"HTTP/1.1 2000 OK", b"HTTP/1.1 099 OK", b"HTTP/1.1 200OK", b""],
)
def test_answer_that_is_no_http_is_an_error(head: bytes) -> None:
    with pytest.raises(TunnelError, match="no HTTP") as caught:
        read_answer(head + b"\r\n\r\n")
    assert caught.value.status is None


# Through a proxy


def test_request_goes_to_the_proxy_before_anything_else(upstream: ScriptedUpstream, pool_by: Pools) -> None:
    upstream.answer(ESTABLISHED)
    upstream.answer(b"pong")
    connection = pool_by(upstream.url, "fd00::1", 80).take()
    connection.sock.sendall(b"ping\r\n\r\n")
    assert connection.sock.recv(10) == b"pong"
    assert [(request.connection, request.head) for request in upstream.requests] == [
        (0, b"CONNECT [fd00::1]:80 HTTP/1.1\r\nHost: [fd00::1]:80"),
        (0, b"ping"),
    ]
    connection.close()


def test_kept_tunnel_is_used_again(upstream: ScriptedUpstream, pool_by: Pools) -> None:
    upstream.answer(ESTABLISHED)
    pool = pool_by(upstream.url)
    connection = pool.take()
    pool.give_back(connection)
    assert pool.take() is connection
    assert len(upstream.requests) == 1
    connection.close()


def test_proxy_is_asked_for_at_each_new_connection(upstream: ScriptedUpstream) -> None:
    proxies = [httpx2.Proxy(f"http://ab:{number}@127.0.0.1:{upstream.port}") for number in (1, 2)]
    pool = ConnectionPool(HOST, PORT, tls=None, connect_s=LIMIT_S, http_proxy=lambda: proxies.pop(0))
    for _ in range(2):
        upstream.answer(ESTABLISHED)
        pool.take().close()
    assert [b64decode(request.head.split(b" ")[-1]) for request in upstream.requests] == [b"ab:1", b"ab:2"]


def test_answer_may_come_in_pieces(upstream: ScriptedUpstream, pool_by: Pools) -> None:
    upstream.answer(*(bytes([byte]) for byte in ESTABLISHED))
    pool_by(upstream.url).take().close()


def test_proxy_on_ipv6_is_reached(pool_by: Pools) -> None:
    with ScriptedUpstream("::1") as proxy:
        proxy.answer(ESTABLISHED)
        pool_by(proxy.url).take().close()


@pytest.mark.parametrize("status", [200, 299])
def test_any_2xx_opens_a_tunnel(upstream: ScriptedUpstream, pool_by: Pools, status: int) -> None:
    upstream.answer(b"HTTP/1.1 %d a\r\n\r\n" % status)
    pool_by(upstream.url).take().close()


@pytest.mark.parametrize("status", [300, 302, 403, 407, 502, 504])
def test_any_other_status_is_an_error_that_names_it_alone(
    upstream: ScriptedUpstream, pool_by: Pools, status: int
) -> None:
    upstream.answer(b"HTTP/1.1 %d s3cret-mark\r\nX: s3cret-mark\r\n\r\ns3cret-mark" % status)
    with pytest.raises(TunnelError) as caught:
        pool_by(upstream.url).take()
    assert (str(caught.value), caught.value.status) == (f"the proxy answered {status}", status)
    upstream.wait_until_left(0)


@pytest.mark.parametrize(
    ("steps", "error"),
    [
        pytest.param([close], "the proxy closed the connection", id="closes"),
        pytest.param([b"HTTP/1.1 200 OK\r\n", close], "the proxy closed the connection", id="closes-amid-the-head"),
        pytest.param([b"\x15\x03\x01\x00\x02\x02F\r\n\r\n"], "the proxy's answer is no HTTP", id="no-http"),
        pytest.param([ESTABLISHED + b"x"], "the proxy sent more than the head of its answer", id="more-than-a-head"),
    ],
)
def test_answer_that_opens_no_tunnel_is_an_error(
    upstream: ScriptedUpstream, pool_by: Pools, steps: list[bytes], error: str
) -> None:
    upstream.answer(*steps)
    with pytest.raises(TunnelError, match=error) as caught:
        pool_by(upstream.url).take()
    assert caught.value.status is None
    upstream.wait_until_left(0)


def _head_of(length: int) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nX: %s\r\n\r\n"
    return head % (b"x" * (length - len(head % b"")))


def test_head_of_8_kib_is_read_and_a_longer_one_refused(upstream: ScriptedUpstream, pool_by: Pools) -> None:
    upstream.answer(_head_of(HEAD_MOST_BYTES))
    pool_by(upstream.url).take().close()
    upstream.answer(_head_of(HEAD_MOST_BYTES + 1))
    with pytest.raises(TunnelError, match="too long"):
        pool_by(upstream.url).take()


def test_heads_before_the_final_one_count_too(upstream: ScriptedUpstream, pool_by: Pools) -> None:
    upstream.answer(b"HTTP/1.1 100 a\r\n\r\n" * (HEAD_MOST_BYTES // 18 + 1))
    with pytest.raises(TunnelError, match="too long"):
        pool_by(upstream.url).take()


def test_reset_by_the_proxy_is_a_connect_error(upstream: ScriptedUpstream, pool_by: Pools) -> None:
    upstream.answer(reset)
    with pytest.raises(httpx2.ConnectError, match="ConnectionResetError"):
        pool_by(upstream.url).take()


def test_proxy_that_is_silent_is_a_timeout(upstream: ScriptedUpstream, pool_by: Pools) -> None:
    with pytest.raises(httpx2.ConnectTimeout):
        pool_by(upstream.url, connect_s=0.1).take()
    upstream.wait_until_left(0)


def test_proxy_that_drips_is_a_timeout(upstream: ScriptedUpstream, pool_by: Pools) -> None:
    upstream.answer(dripping)
    with pytest.raises(httpx2.ConnectTimeout):
        pool_by(upstream.url, connect_s=0.3).take()
    upstream.wait_until_left(0)


def test_refused_connection_to_the_proxy_is_tried_once_more(upstream: ScriptedUpstream) -> None:
    class Restarting(ConnectionPool):
        refusals = 1

        def _connect(self, address: tuple[str, int], deadline: float) -> socket.socket:
            if self.refusals:
                self.refusals -= 1
                raise ConnectionRefusedError
            return super()._connect(address, deadline)

    upstream.answer(ESTABLISHED)
    proxy = httpx2.Proxy(upstream.url)
    Restarting(HOST, PORT, tls=None, connect_s=LIMIT_S, http_proxy=lambda: proxy).take().close()


def test_url_that_is_none_any_more_is_a_connect_error_without_its_text() -> None:
    def read() -> httpx2.Proxy:
        raise ValueError("s3cret-mark")

    with pytest.raises(httpx2.ConnectError) as caught:
        ConnectionPool(HOST, PORT, tls=None, connect_s=LIMIT_S, http_proxy=read).take()
    assert str(caught.value) == "ValueError"


# TLS in the tunnel


def test_upstreams_name_is_verified_in_the_tunnel(
    upstream: ScriptedUpstream, pool_by: Pools, authority: Authority
) -> None:
    tls = ClientTls(authority.ca_bundle)
    with (
        TlsFront(upstream.url, authority.server_context(authority.issue("localhost"))) as front,
        ForwardProxy() as forward,
    ):
        pool_by(forward.url(), "localhost", front.port, tls=tls).take().close()
        with pytest.raises(httpx2.ConnectError, match="SSLCertVerificationError"):
            pool_by(forward.url(), "127.0.0.1", front.port, tls=tls).take()


def test_silence_in_the_handshake_is_a_timeout(upstream: ScriptedUpstream, pool_by: Pools) -> None:
    upstream.answer(ESTABLISHED)
    with pytest.raises(httpx2.ConnectTimeout):
        pool_by(upstream.url, connect_s=0.2, tls=ClientTls()).take()


def test_connection_in_a_tunnel_can_be_shut_down_under_its_reader(
    upstream: ScriptedUpstream, pool_by: Pools, authority: Authority
) -> None:
    tls = ClientTls(authority.ca_bundle)
    with TlsFront(upstream.url, authority.server_context(authority.issue())) as front, ForwardProxy() as forward:
        connection = pool_by(forward.url(), "127.0.0.1", front.port, tls=tls).take()
        thread = threading.Thread(target=connection.shut_down)
        thread.start()
        assert connection.receive(1, LIMIT_S) == b""
        thread.join()
        connection.close()
