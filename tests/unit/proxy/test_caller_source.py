import socket
from types import SimpleNamespace

import pytest

from proxy import caller_source
from proxy.caller_source import BODY_S, HEAD_S, IDLE_S, CallerSource


class FakeReader:
    """Each read takes its time on the hand-moved clock, and gives a byte if that is in time."""

    def __init__(self, now: list[float]) -> None:
        self.waits: list[float] = []
        self.takes_s: list[float] = []
        self.closed = False
        self.at_end = False
        self._now = now

    def receive(self, most: int, timeout_s: float) -> bytes:
        self.waits.append(timeout_s)
        takes_s = self.takes_s.pop(0) if self.takes_s else 0.0
        if self.at_end:
            return b""
        self._now[0] += min(takes_s, timeout_s)
        if takes_s > timeout_s:
            raise TimeoutError
        return b"x" * min(most, 1)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> FakeReader:
    now = [1000.0]
    reader = FakeReader(now)
    monkeypatch.setattr(caller_source, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(caller_source, "socket_reader", lambda _: reader)
    return reader


@pytest.fixture
def source(reader: FakeReader) -> CallerSource:
    return CallerSource(None)  # type: ignore[arg-type]


def test_idle_connection_has_75_s(source: CallerSource, reader: FakeReader) -> None:
    reader.takes_s = [IDLE_S]
    source.expect_request()
    assert source.recv(8192) == b"x"
    reader.takes_s = [IDLE_S + 0.1]
    source.expect_request()
    with pytest.raises(TimeoutError):
        source.recv(8192)
    assert reader.waits == [75, 75]


@pytest.mark.parametrize("idle_s", [0.0, IDLE_S], ids=["at once", "after a while"])
def test_head_has_10_s_from_its_first_byte_on_however_it_drips(
    source: CallerSource, reader: FakeReader, idle_s: float
) -> None:
    reader.takes_s = [idle_s, *[1.0] * 11]
    source.expect_request()
    for _ in range(11):
        source.recv(8192)
    with pytest.raises(TimeoutError):
        source.recv(8192)
    assert reader.waits == [IDLE_S, *(HEAD_S - second for second in range(10))]


def test_body_has_30_s_however_it_drips(source: CallerSource, reader: FakeReader) -> None:
    reader.takes_s = [5.0, *[7.0] * 5]
    source.expect_request()
    source.recv(8192)
    source.expect_body()
    for _ in range(4):
        source.recv(8192)
    with pytest.raises(TimeoutError):
        source.recv(8192)
    assert reader.waits[1:] == [BODY_S, 23, 16, 9, 2]


def test_next_request_has_the_time_of_an_idle_connection_again(source: CallerSource, reader: FakeReader) -> None:
    for _ in range(3):
        source.expect_request()
        source.recv(8192)
        source.expect_body()
        reader.takes_s = [29.0]
        source.recv(8192)
        source.expect_request()
        reader.takes_s = [74.0]
        assert source.recv(8192) == b"x"


def test_close_closes_the_reader(source: CallerSource, reader: FakeReader) -> None:
    source.close()
    assert reader.closed


def test_request_that_came_half_with_the_one_before_has_10_s(source: CallerSource, reader: FakeReader) -> None:
    source.expect_request(has_begun=True)
    source.recv(8192)
    assert reader.waits == [HEAD_S]


def test_end_stays_the_end(source: CallerSource, reader: FakeReader) -> None:
    # Linux delivers what comes after a shutdown() of the reading half: the rest of a body that was refused.
    source.expect_body()
    reader.at_end = True
    assert source.recv(8192) == b""
    reader.at_end = False
    source.expect_request()
    assert source.recv(8192) == b""


@pytest.mark.parametrize("idle", [True, False])
def test_worker_that_ends_breaks_off_idle_waits_only(idle: bool) -> None:
    ours, caller = socket.socketpair()
    with ours, caller:
        source = CallerSource(ours)
        source.expect_request(has_begun=not idle)
        caller.sendall(b"GET")
        source.end_if_idle()
        assert source.recv(8192) == b"GET"  # it was here already
        if idle:
            assert source.recv(8192) == b""
        source.close()


def test_what_is_discarded_ends_with_the_caller(source: CallerSource, reader: FakeReader) -> None:
    source.expect_body()
    reader.at_end = True
    source.discard()
    assert len(reader.waits) == 1


def test_what_is_discarded_has_the_time_of_a_body(source: CallerSource, reader: FakeReader) -> None:
    source.expect_body()
    reader.takes_s = [BODY_S / 3] * 10
    with pytest.raises(TimeoutError):
        source.discard()
    assert len(reader.waits) <= 4


def test_no_more_than_32_mib_are_discarded(
    source: CallerSource, reader: FakeReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caller_source, "DISCARDED_MOST_BYTES", 3)
    source.expect_body()
    source.discard()
    assert len(reader.waits) == 3
