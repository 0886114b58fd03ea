import contextlib
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from proxy.upstreams.connection import IDLE_MOST_S, Connection, ConnectionPool
from proxy.upstreams.tls import ClientTls
from tests.support.certificates import self_signed
from tests.support.scripted_upstream import LIMIT_S, ScriptedUpstream
from tests.support.tls_front import TlsFront
from tests.support.waiting import wait_for

Pools = Callable[..., ConnectionPool]


@pytest.fixture
def pair() -> Iterator[tuple[Connection, socket.socket]]:
    """A connection over TCP and its peer's end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sock = socket.create_connection(listener.getsockname(), timeout=LIMIT_S)
        peer, _ = listener.accept()
    with sock, peer:
        peer.settimeout(LIMIT_S)
        connection = Connection(sock)
        connection.idle_since = time.monotonic()
        yield connection, peer


@pytest.fixture
def pool_to() -> Iterator[Pools]:
    with contextlib.ExitStack() as stack:

        def pool_to(
            port: int, *, idle_most: int = 256, connect_s: float = LIMIT_S, tls: bool = False
        ) -> ConnectionPool:
            client_tls = ClientTls() if tls else None
            pool = ConnectionPool("127.0.0.1", port, tls=client_tls, connect_s=connect_s, idle_most=idle_most)
            stack.callback(pool.close)
            return pool

        yield pool_to


# Is it still good?


def test_silent_open_connection_is_not_stale(pair: tuple[Connection, socket.socket]) -> None:
    assert not pair[0].is_stale()


def test_connection_that_the_peer_closed_is_stale(pair: tuple[Connection, socket.socket]) -> None:
    pair[1].close()
    assert pair[0].is_stale()


def test_connection_that_the_peer_half_closed_is_stale(pair: tuple[Connection, socket.socket]) -> None:
    pair[1].shutdown(socket.SHUT_WR)
    assert pair[0].is_stale()


def test_connection_that_the_peer_reset_is_stale(pair: tuple[Connection, socket.socket]) -> None:
    pair[1].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    pair[1].close()
    assert pair[0].is_stale()


def test_connection_with_unread_bytes_is_stale(pair: tuple[Connection, socket.socket]) -> None:
    pair[1].sendall(b"x")
    assert pair[0].is_stale()


def test_connection_idle_for_less_than_55_s_is_not_stale(pair: tuple[Connection, socket.socket]) -> None:
    pair[0].idle_since = time.monotonic() - IDLE_MOST_S + 5
    assert not pair[0].is_stale()


def test_connection_idle_for_more_than_55_s_is_stale(pair: tuple[Connection, socket.socket]) -> None:
    pair[0].idle_since = time.monotonic() - IDLE_MOST_S
    assert pair[0].is_stale()


def test_bytes_that_the_peer_took_are_counted(pair: tuple[Connection, socket.socket]) -> None:
    connection, peer = pair
    before = connection.bytes_acked()
    connection.sock.sendall(b"12345")
    peer.sendall(peer.recv(5))  # the answer carries the acknowledgement
    connection.sock.recv(5)
    after = connection.bytes_acked()
    assert before is not None
    assert after == before + 5


def test_bytes_are_not_counted_where_the_system_does_not_tell() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert Connection(one).bytes_acked() is None


# Sending, and how much of it the peer has taken


def exchange(connection: Connection, peer: socket.socket, data: bytes) -> None:
    """Send, and let an answer carry the acknowledgement."""
    connection.send(data)
    left = len(data)
    while left:
        left -= len(peer.recv(left))
    peer.sendall(b"x")
    assert connection.receive(1, LIMIT_S) == b"x"


def test_count_of_what_was_sent_is_the_systems_own_after_each_exchange(pair: tuple[Connection, socket.socket]) -> None:
    connection, peer = pair
    assert connection.bytes_to_ack() == connection.bytes_acked()
    for length in (1, 5, 70_000, 1):
        before = connection.bytes_to_ack()
        exchange(connection, peer, b"y" * length)
        assert connection.bytes_to_ack() == connection.bytes_acked()
        assert before is not None
        assert connection.bytes_to_ack() == before + length


def test_what_was_sent_before_the_connection_was_made_counts_too(pair: tuple[Connection, socket.socket]) -> None:
    sock, peer = pair[0].sock, pair[1]
    sock.sendall(b"CONNECT")
    peer.sendall(peer.recv(7))
    sock.recv(7)
    connection = Connection(sock)
    exchange(connection, peer, b"12345")
    assert connection.bytes_to_ack() == connection.bytes_acked()


def test_what_a_closed_peer_does_not_take_is_not_acknowledged(pair: tuple[Connection, socket.socket]) -> None:
    connection, peer = pair
    exchange(connection, peer, b"12345")
    before = connection.bytes_to_ack()
    peer.close()
    connection.send(b"123")
    assert connection.bytes_acked() == before
    assert before is not None
    assert connection.bytes_to_ack() == before + 3


@pytest.mark.parametrize("size", [0, 1, 20_000_000])
def test_all_of_it_arrives_however_slowly_the_peer_reads(pair: tuple[Connection, socket.socket], size: int) -> None:
    connection, peer = pair
    data = random.Random(4).randbytes(size)
    received = bytearray()

    def read() -> None:
        while piece := peer.recv(100_000):
            received.extend(piece)
            time.sleep(0)

    reader = threading.Thread(target=read)
    reader.start()
    connection.send(data)
    connection.sock.shutdown(socket.SHUT_WR)
    reader.join(LIMIT_S)
    assert received == data


def test_peer_that_stops_reading_is_a_timeout(pair: tuple[Connection, socket.socket]) -> None:
    pair[0].sock.settimeout(0.05)
    with pytest.raises(TimeoutError):
        pair[0].send(bytes(20_000_000))


def test_what_tls_makes_of_it_is_asked_of_the_system(tmp_path: Path) -> None:
    # It sends more than it is given, and no fixed amount more.
    certificate = self_signed(tmp_path / "upstream.pem", "upstream")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with ScriptedUpstream() as upstream, TlsFront(upstream.url, context) as front:
        upstream.answer(b"x")
        tls = ClientTls(ca_bundle=certificate)
        connection = ConnectionPool("127.0.0.1", front.port, tls=tls, connect_s=LIMIT_S).take()
        before = connection.bytes_to_ack()
        connection.send(b"GET / HTTP/1.1\r\n\r\n")
        assert connection.receive(1, LIMIT_S) == b"x"
        assert before is not None
        assert connection.bytes_to_ack() == connection.bytes_acked()
        assert (connection.bytes_acked() or 0) > before + len(b"GET / HTTP/1.1\r\n\r\n")
        connection.close()


# Shutting down from another thread


def test_shut_down_wakes_the_reader(pair: tuple[Connection, socket.socket]) -> None:
    connection = pair[0]
    thread = threading.Thread(target=connection.shut_down)
    thread.start()
    assert connection.sock.recv(1) == b""
    thread.join()


def test_shut_down_of_a_closed_connection_does_nothing(pair: tuple[Connection, socket.socket]) -> None:
    pair[0].close()
    pair[0].shut_down()
    pair[0].close()


# The pool


def test_new_connection_is_not_called_reused(upstream: ScriptedUpstream, pool_to: Pools) -> None:
    connection = pool_to(upstream.port).take()
    assert not connection.reused
    connection.close()


def test_connection_given_back_is_taken_again_and_called_reused(upstream: ScriptedUpstream, pool_to: Pools) -> None:
    pool = pool_to(upstream.port)
    connection = pool.take()
    pool.give_back(connection)
    assert pool.take() is connection
    assert connection.reused
    connection.close()


def test_connection_used_last_is_taken_first(upstream: ScriptedUpstream, pool_to: Pools) -> None:
    pool = pool_to(upstream.port)
    first, second = pool.take(), pool.take()
    pool.give_back(first)
    pool.give_back(second)
    assert [pool.take(), pool.take()] == [second, first]
    first.close()
    second.close()


def test_stale_connections_are_closed_on_the_way_to_a_good_one(upstream: ScriptedUpstream, pool_to: Pools) -> None:
    pool = pool_to(upstream.port)
    connections = [pool.take() for _ in range(3)]
    for connection in connections:
        pool.give_back(connection)
    good, stale, older = connections
    for connection in (stale, older):
        connection.idle_since -= IDLE_MOST_S
    assert pool.take() is good
    assert [stale.sock.fileno(), older.sock.fileno()] == [-1, -1]
    good.close()


@pytest.mark.parametrize(("idle_most", "kept"), [(1, 1), (2, 2), (3, 2)])
def test_no_more_connections_are_kept_than_allowed(
    upstream: ScriptedUpstream, pool_to: Pools, idle_most: int, kept: int
) -> None:
    pool = pool_to(upstream.port, idle_most=idle_most)
    connections = [pool.take(), pool.take()]
    for connection in connections:
        pool.give_back(connection)
    assert sum(connection.sock.fileno() >= 0 for connection in connections) == kept


def test_close_closes_what_lies_idle(upstream: ScriptedUpstream, pool_to: Pools) -> None:
    pool = pool_to(upstream.port)
    connection = pool.take()
    pool.give_back(connection)
    pool.close()
    assert connection.sock.fileno() == -1


def test_connection_given_back_after_the_end_is_closed(upstream: ScriptedUpstream, pool_to: Pools) -> None:
    pool = pool_to(upstream.port)
    connection = pool.take()
    pool.close()
    pool.give_back(connection)
    assert connection.sock.fileno() == -1


# By the clock


@pytest.fixture
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.upstreams.connection.LOOK_EVERY_S", 0.01)


@pytest.mark.usefixtures("looks_often")
def test_connections_that_grow_old_are_closed_though_nobody_asks_any_more(
    upstream: ScriptedUpstream, pool_to: Pools
) -> None:
    pool = pool_to(upstream.port)
    old, older, young = connections = [pool.take() for _ in range(3)]
    for connection in connections:
        pool.give_back(connection)
    old.idle_since -= IDLE_MOST_S + 1
    older.idle_since -= IDLE_MOST_S + 1
    wait_for(lambda: (old.sock.fileno(), older.sock.fileno()) == (-1, -1))
    assert pool.take() is young
    # Once all had gone, the next ones grow old as well.
    pool.give_back(young)
    young.idle_since -= IDLE_MOST_S + 1
    wait_for(lambda: young.sock.fileno() == -1)


@pytest.mark.usefixtures("looks_often")
def test_one_thread_looks_after_a_pool_and_ends_with_it(upstream: ScriptedUpstream, pool_to: Pools) -> None:
    def sweepers() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "idle-upstreams"]

    before = sweepers()
    pool = pool_to(upstream.port)
    connections = [pool.take() for _ in range(3)]
    assert sweepers() == before
    for connection in connections:
        pool.give_back(connection)
    [sweeper] = [thread for thread in sweepers() if thread not in before]
    pool.close()
    sweeper.join(LIMIT_S)
    assert not sweeper.is_alive()


def test_small_requests_are_not_held_back(upstream: ScriptedUpstream, pool_to: Pools) -> None:
    connection = pool_to(upstream.port).take()
    assert connection.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    connection.close()


class RefusingPool(ConnectionPool):
    """Refuses some times before it connects, as a service that restarts."""

    def __init__(self, port: int, refusals: int) -> None:
        super().__init__("127.0.0.1", port, tls=None, connect_s=LIMIT_S)
        self.refusals = refusals

    def _connect(self, address: tuple[str, int], deadline: float) -> socket.socket:
        if self.refusals:
            self.refusals -= 1
            raise ConnectionRefusedError
        return super()._connect(address, deadline)


def test_refused_connection_is_tried_once_more(upstream: ScriptedUpstream) -> None:
    RefusingPool(upstream.port, refusals=1).take().close()


def test_connection_refused_twice_is_an_error(upstream: ScriptedUpstream) -> None:
    with pytest.raises(httpx2.ConnectError):
        RefusingPool(upstream.port, refusals=2).take()


@pytest.mark.parametrize("order", [[0, 1], [1, 0]], ids=["good first", "refused first"])
def test_every_address_of_the_host_is_tried(
    upstream: ScriptedUpstream, pool_to: Pools, monkeypatch: pytest.MonkeyPatch, order: list[int]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        refused = closed.getsockname()
    addresses = [("127.0.0.1", upstream.port), refused]
    found = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", addresses[at]) for at in order]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    connection = pool_to(upstream.port).take()
    assert connection.sock.getpeername()[1] == upstream.port
    connection.close()


def test_host_without_addresses_is_an_error(pool_to: Pools, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [])
    with pytest.raises(httpx2.ConnectError):
        pool_to(1).take()


# TLS


def test_peer_that_is_silent_in_the_handshake_is_a_timeout(pool_to: Pools) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(httpx2.ConnectTimeout):
        pool_to(silent.getsockname()[1], connect_s=0.1, tls=True).take()


def test_peer_that_drips_in_the_handshake_is_a_timeout(pool_to: Pools) -> None:
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            sock, _ = listener.accept()
            with sock, contextlib.suppress(OSError):
                sock.sendall(b"\x16\x03\x03\x40\x00")  # a record of 16 KiB begins
                while not over.wait(0.02):
                    sock.sendall(b"x")

        thread = threading.Thread(target=drip)
        thread.start()
        with pytest.raises(httpx2.ConnectTimeout):
            pool_to(listener.getsockname()[1], connect_s=0.3, tls=True).take()
        over.set()
        thread.join()


def test_peer_without_tls_is_a_connect_error(pool_to: Pools) -> None:
    with socket.create_server(("127.0.0.1", 0)) as plain:

        def speak() -> None:
            sock, _ = plain.accept()
            with sock:
                sock.recv(1000)
                sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=speak)
        thread.start()
        with pytest.raises(httpx2.ConnectError):
            pool_to(plain.getsockname()[1], tls=True).take()
        thread.join()
