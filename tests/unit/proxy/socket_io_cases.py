"""The cases of test_socket_io.py. They need gevent's patches, so they run in a process that it starts."""

import random
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import gevent
import pytest
from gevent import monkey

from proxy.socket_io import BlockingReader, WaitingReader, socket_reader
from proxy.upstreams.connection import Connection
from tests.support.certificates import self_signed

LIMIT_S = 5.0  # no case waits for longer
LATE_S = 0.05

Pair = tuple[WaitingReader, socket.socket]

_sleep_whole_process = monkey.get_original("time", "sleep")


@pytest.fixture
def pair_of() -> Iterator[Callable[[], Pair]]:
    """Makes a reader and its peer's socket; all is closed after the test."""
    with ExitStack() as stack:

        def pair_of() -> Pair:
            sock, peer = socket.socketpair()
            reader = socket_reader(sock)
            assert isinstance(reader, WaitingReader)
            for end in (peer.close, sock.close, reader.close):  # from the last to the first
                stack.callback(end)
            return reader, peer

        yield pair_of


@pytest.fixture
def pair(pair_of: Callable[[], Pair]) -> Pair:
    return pair_of()


def close(peer: socket.socket) -> None:
    peer.close()


def half_close(peer: socket.socket) -> None:
    peer.shutdown(socket.SHUT_WR)


def speak(peer: socket.socket) -> None:
    peer.sendall(b"x")


def read_in_vain(reader: BlockingReader | WaitingReader, timeout_s: float = LATE_S) -> None:
    with pytest.raises(TimeoutError):
        reader.receive(10, timeout_s)


# Bytes, the end, and neither


@pytest.mark.parametrize(("act", "expected"), [(speak, b"x"), (close, b""), (half_close, b"")])
@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_read_gives_the_bytes_or_the_end(
    pair: Pair, act: Callable[[socket.socket], None], expected: bytes, when: str
) -> None:
    reader, peer = pair
    if when == "before":
        act(peer)
    else:
        gevent.spawn(act, peer)
    assert reader.receive(10, LIMIT_S) == expected


def test_read_after_a_reset_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sock = socket.create_connection(listener.getsockname())
        peer, _ = listener.accept()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    reader = WaitingReader(sock)
    gevent.spawn(peer.close)
    with pytest.raises(ConnectionResetError):
        reader.receive(10, LIMIT_S)
    reader.close()
    sock.close()


def test_read_gives_no_more_than_asked_for_and_the_rest_to_the_next(pair: Pair) -> None:
    reader, peer = pair
    peer.sendall(b"12345")
    peer.close()
    assert [reader.receive(2, LIMIT_S) for _ in range(4)] == [b"12", b"34", b"5", b""]


def test_others_have_their_turn_though_there_is_always_more_to_read() -> None:
    ours, peer = socket.socketpair()
    with ours, peer:
        peer.setblocking(False)
        for _ in range(100):
            peer.send(b"12")
        reader, turns = WaitingReader(ours), 0

        def take_turns() -> None:
            nonlocal turns
            while True:
                turns += 1
                gevent.sleep()

        other = gevent.spawn(take_turns)
        for _ in range(100):
            assert reader.receive(2, LIMIT_S) == b"12"
        other.kill()
        assert turns >= 5
        reader.close()


def test_read_in_vain_is_a_timeout_and_the_next_one_works(pair: Pair) -> None:
    reader, peer = pair
    for _ in range(3):
        read_in_vain(reader)
    speak(peer)
    assert reader.receive(10, LIMIT_S) == b"x"
    read_in_vain(reader)


def test_time_outs_may_differ_from_read_to_read(pair: Pair) -> None:
    reader, peer = pair
    for timeout_s in (0.001, LIMIT_S, 0.1, 300.0, LATE_S, LATE_S, 1800.0, 0.06):
        if timeout_s > 1:
            gevent.spawn(speak, peer)
            assert reader.receive(10, timeout_s) == b"x"
        else:
            read_in_vain(reader, timeout_s)


def test_read_waits_as_long_as_it_was_told(pair: Pair) -> None:
    for timeout_s in (0.3, 0.1, 0.11):
        began = time.monotonic()
        read_in_vain(pair[0], timeout_s)
        assert time.monotonic() - began > 0.9 * timeout_s


def test_time_counts_from_the_begin_of_the_read_however_long_the_loop_has_not_looked_at_the_clock(pair: Pair) -> None:
    _sleep_whole_process(0.3)
    began = time.monotonic()
    read_in_vain(pair[0], 0.2)
    assert time.monotonic() - began > 0.18


def test_many_reads_at_once_end_each_by_its_own(pair_of: Callable[[], Pair]) -> None:
    pairs = [pair_of() for _ in range(150)]
    speakers = set(random.Random(4).sample(range(len(pairs)), 75))
    reads = [
        gevent.spawn(reader.receive, 10, LIMIT_S if number in speakers else 4 * LATE_S)
        for number, (reader, _) in enumerate(pairs)
    ]
    gevent.sleep(0)
    for number in speakers:
        pairs[number][1].sendall(b"%d" % number)
    gevent.joinall(reads, timeout=LIMIT_S)
    assert {number: read.value for number, read in enumerate(reads) if read.value} == {
        number: b"%d" % number for number in speakers
    }
    assert all(isinstance(read.exception, TimeoutError) for number, read in enumerate(reads) if number not in speakers)


# The timer ends its own wait and nothing else


def test_time_out_at_the_moment_of_the_bytes_loses_neither_and_comes_once(pair: Pair) -> None:
    reader, peer = pair

    def block() -> None:
        _sleep_whole_process(2 * LATE_S)  # so that the loop sees both in the same round
        speak(peer)

    for _ in range(5):
        gevent.spawn(block)
        try:
            data = reader.receive(10, LATE_S)
        except TimeoutError:
            data = b""
        gevent.sleep(3 * LATE_S)  # whatever was thrown late would end this
        assert data or reader.receive(10, LIMIT_S) == b"x"


@pytest.mark.parametrize("ended_by", ["bytes", "time"])
def test_timer_never_fires_into_what_the_greenlet_does_next(
    pair: Pair, pair_of: Callable[[], Pair], ended_by: str
) -> None:
    reader, peer = pair
    other, other_peer = pair_of()
    if ended_by == "bytes":
        speak(peer)
        assert reader.receive(10, LATE_S) == b"x"
    else:
        read_in_vain(reader)
    gevent.spawn_later(4 * LATE_S, speak, other_peer)
    assert other.receive(10, LIMIT_S) == b"x"
    gevent.sleep(2 * LATE_S)


def test_timer_of_a_read_that_was_broken_off_never_fires(pair: Pair) -> None:
    reader, peer = pair
    with gevent.Timeout(LATE_S / 5, False):
        reader.receive(10, LATE_S)
        raise AssertionError("the read was to be broken off")
    gevent.sleep(3 * LATE_S)
    speak(peer)
    assert reader.receive(10, LIMIT_S) == b"x"


def test_greenlet_that_is_killed_may_take_its_time_to_tidy_up_and_leaves_a_reader_that_works(pair: Pair) -> None:
    reader, peer = pair
    ended: list[object] = []

    def work() -> None:
        try:
            reader.receive(10, LATE_S)
        except BaseException as error:
            ended.append(type(error))
            gevent.sleep(2 * LATE_S)
            ended.append("tidied up")
            raise

    greenlet = gevent.spawn(work)
    gevent.sleep(0)
    greenlet.kill()
    assert ended == [gevent.GreenletExit, "tidied up"]
    speak(peer)
    assert reader.receive(10, LIMIT_S) == b"x"


def test_another_greenlet_may_go_on_reading(pair: Pair) -> None:
    reader, peer = pair
    first = gevent.spawn(reader.receive, 10, LATE_S)
    first.join(LIMIT_S)
    assert isinstance(first.exception, TimeoutError)
    read_in_vain(reader)
    speak(peer)
    assert gevent.spawn(reader.receive, 10, LIMIT_S).get(timeout=LIMIT_S) == b"x"


# What is left behind


def test_loop_lets_go_of_bytes_that_nobody_reads(pair: Pair) -> None:
    reader, peer = pair
    loop = gevent.get_hub().loop
    for _ in range(3):
        read_in_vain(reader)  # watched from here on
        active = loop.activecnt
        speak(peer)
        gevent.sleep(0.01)
        assert loop.activecnt < active  # others may end at any time
        assert reader.receive(10, LIMIT_S) == b"x"


def test_wake_ups_in_vain_make_no_wait_longer(pair: Pair) -> None:
    reading = gevent.spawn(pair[0].receive, 10, LATE_S)
    for _ in range(50):
        gevent.sleep(LATE_S / 3)
        if reading.ready():
            break
        gevent.get_hub().loop.run_callback(reading.switch)
    assert isinstance(reading.exception, TimeoutError)


def test_read_of_a_closed_reader_is_an_error(pair: Pair) -> None:
    reader, peer = pair
    read_in_vain(reader)
    reader.close()
    speak(peer)
    with pytest.raises(OSError, match="closed"):
        reader.receive(10, LIMIT_S)


def test_closed_reader_leaves_nothing_in_the_loop() -> None:
    loop = gevent.get_hub().loop
    sock, peer = socket.socketpair()
    reader = WaitingReader(sock)
    read_in_vain(reader)
    speak(peer)
    assert reader.receive(10, LIMIT_S) == b"x"
    active = loop.activecnt
    reader.close()
    assert loop.activecnt == active - 2  # the watch and the timer; others may end at any time
    sock.close()
    peer.close()


def test_descriptor_of_a_closed_connection_is_free_for_the_next() -> None:
    numbers = []
    for _ in range(5):
        sock, peer = socket.socketpair()
        reader = WaitingReader(sock)
        numbers.append(sock.fileno())
        read_in_vain(reader)
        speak(peer)
        assert reader.receive(10, LIMIT_S) == b"x"
        reader.close()
        sock.close()
        peer.close()
    assert len(set(numbers)) == 1  # the system takes the lowest one that is free


def test_connection_is_closed_though_nobody_ever_read_from_it() -> None:
    sock, peer = socket.socketpair()
    Connection(sock).close()
    assert peer.recv(1) == b""
    peer.close()


def test_shut_down_by_another_greenlet_wakes_the_reader() -> None:
    sock, peer = socket.socketpair()
    connection = Connection(sock)
    gevent.spawn(connection.shut_down)
    assert connection.receive(10, LIMIT_S) == b""
    connection.close()
    peer.close()


@pytest.fixture
def tls_pair(tmp_path: Path) -> Iterator[tuple[ssl.SSLSocket, ssl.SSLSocket]]:
    """A client's socket under TLS, and its peer's."""
    certificate = self_signed(tmp_path / "server.pem", "server")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate)
    sock, peer = socket.socketpair()
    wrapping = gevent.spawn(server.wrap_socket, peer, server_side=True)
    client = ssl.create_default_context(cafile=str(certificate))
    tls = client.wrap_socket(sock, server_hostname="127.0.0.1")
    yield tls, wrapping.get()
    tls.close()
    wrapping.get().close()


def test_tls_gives_what_came_in_one_record_in_several_reads(tls_pair: tuple[ssl.SSLSocket, ssl.SSLSocket]) -> None:
    tls, peer = tls_pair
    reader = socket_reader(tls)
    peer.sendall(b"12345")
    assert [reader.receive(2, LIMIT_S) for _ in range(3)] == [b"12", b"34", b"5"]
    read_in_vain(reader)
    gevent.spawn_later(0.01, peer.sendall, b"6")
    assert reader.receive(2, LIMIT_S) == b"6"
    reader.close()


def test_tls_record_that_drips_ends_no_wait(tls_pair: tuple[ssl.SSLSocket, ssl.SSLSocket]) -> None:
    tls, peer = tls_pair
    reader = socket_reader(tls)
    raw = socket.socket(fileno=peer.detach())

    def drip() -> None:
        raw.sendall(b"\x17\x03\x03\x40\x00")  # a record of 16 KiB begins
        while True:
            raw.sendall(b"x")
            gevent.sleep(LATE_S / 5)

    dripping = gevent.spawn(drip)
    read_in_vain(reader, 4 * LATE_S)
    dripping.kill()
    raw.close()
    reader.close()
