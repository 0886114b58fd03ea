"""A fetch ends for its caller when its time is over, whatever the issuer and the way to it do, and goes on no further.

Where an issuer drips, no limit per read or per wait ever ends the connection: only breaking it off does.
"""

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from proxy.tokens.sources import endpoint as endpoint_module
from proxy.tokens.sources.base import TokenFetchError
from proxy.tokens.sources.deadline import GIVEN_UP_MOST

_TOO_LATE = ("token endpoint: no answer within the deadline", False)
_FOR_EVER_S = 60.0


@pytest.fixture(autouse=True)
def _short_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_module, "FETCH_DEADLINE_S", 0.2)


def _silence(issuer, peer) -> None:
    issuer.ended.wait(10)


def _drip_head(issuer, peer) -> None:
    peer.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
    issuer.drip(peer, b"x")


def _drip_body(issuer, peer) -> None:
    peer.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n{"access_token": "s3cret-mark"}')
    issuer.drip(peer)


def _drip_body_without_length(issuer, peer) -> None:
    peer.sendall(b'HTTP/1.1 200 OK\r\n\r\n{"access_token": "s3cret-mark"')
    issuer.drip(peer)


def _drip_chunks(issuer, peer) -> None:
    peer.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    issuer.drip(peer, b"1\r\nx\r\n")


def _drip_heads(issuer, peer) -> None:
    issuer.drip(peer, b"HTTP/1.1 100 Continue\r\n\r\n")


def _drip_handshake(issuer, peer) -> None:
    # A TLS record that says it is long and a ServerHello that says so too: the client reads on.
    peer.sendall(b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc\x03\x03")
    issuer.drip(peer, b"\0")


_REPLIES = [_silence, _drip_head, _drip_body, _drip_body_without_length, _drip_chunks, _drip_heads]


@pytest.mark.parametrize("behave", _REPLIES)
def test_reply_that_does_not_end_is_broken_off(issuer, make_endpoint, failure, calls_end, behave) -> None:
    issuer.behave(lambda peer: behave(issuer, peer))
    error = failure(make_endpoint(issuer.url))
    assert (str(error), error.connection) == _TOO_LATE
    calls_end()


@pytest.mark.parametrize("behave", _REPLIES)
def test_reply_over_tls_that_does_not_end_is_broken_off(
    tls_issuer, make_endpoint, failure, trusting_issuer, calls_end, behave
) -> None:
    tls_issuer.behave(lambda peer: behave(tls_issuer, peer))
    error = failure(make_endpoint(tls_issuer.url, ssl_context=trusting_issuer))
    assert (str(error), error.connection) == _TOO_LATE
    calls_end()


@pytest.mark.parametrize("behave", [_silence, _drip_handshake])
def test_tls_handshake_that_does_not_end_is_broken_off(
    tls_issuer, make_endpoint, failure, trusting_issuer, calls_end, monkeypatch, behave
) -> None:
    monkeypatch.setattr(endpoint_module, "CONNECT_TIMEOUT_S", _FOR_EVER_S)
    tls_issuer.behave_at_connect(lambda peer: behave(tls_issuer, peer))
    error = failure(make_endpoint(tls_issuer.url, ssl_context=trusting_issuer))
    assert (str(error), error.connection) == _TOO_LATE
    calls_end()


def test_tls_handshake_has_the_time_of_a_connect(
    tls_issuer, make_endpoint, failure, trusting_issuer, monkeypatch
) -> None:
    monkeypatch.setattr(endpoint_module, "CONNECT_TIMEOUT_S", 0.1)
    monkeypatch.setattr(endpoint_module, "FETCH_DEADLINE_S", _FOR_EVER_S)
    tls_issuer.behave_at_connect(lambda peer: _silence(tls_issuer, peer))
    error = failure(make_endpoint(tls_issuer.url, ssl_context=trusting_issuer))
    assert (str(error), error.connection) == ("token endpoint: ConnectTimeout", False)


@pytest.fixture
def black_hole() -> Iterator[tuple[str, int]]:
    """An address that answers no attempt to connect: a listener with a full queue."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for peer in (first, second):
            peer.setblocking(False)
            peer.connect_ex(listener.getsockname())
        with pytest.raises(TimeoutError):
            socket.create_connection(listener.getsockname(), 0.05)
        yield listener.getsockname()


def _found(*addresses: tuple[str, int]) -> list[tuple[Any, ...]]:
    return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address) for address in addresses]


def test_host_of_many_dead_addresses_is_given_up(
    black_hole, make_endpoint, failure, resolve_by, calls_end, monkeypatch
) -> None:
    monkeypatch.setattr(endpoint_module, "CONNECT_TIMEOUT_S", 0.1)
    resolve_by(lambda *_: _found(*[black_hole] * 6))
    error = failure(make_endpoint("http://issuer.invalid/"))
    assert (str(error), error.connection) == _TOO_LATE
    calls_end()


@pytest.fixture
def slow_names(issuer, resolve_by) -> Iterator[threading.Event]:
    """Names resolve, to the issuer, from when it is set."""
    found = threading.Event()
    resolve_by(lambda *_: _found(("127.0.0.1", issuer.port)) if found.wait(10) else [])
    yield found
    found.set()


def test_name_that_resolves_too_late_is_given_up_and_nothing_is_sent(
    issuer, make_endpoint, failure, slow_names, calls_end
) -> None:
    error = failure(make_endpoint("http://issuer.invalid/"))
    assert (str(error), error.connection) == _TOO_LATE
    slow_names.set()
    calls_end()
    assert issuer.received == []


def test_no_request_is_begun_while_three_that_were_given_up_go_on(
    issuer, make_endpoint, failure, slow_names, calls_end, monkeypatch
) -> None:
    endpoint = make_endpoint("http://issuer.invalid/")
    for _ in range(GIVEN_UP_MOST):
        assert str(failure(endpoint)) == _TOO_LATE[0]
    monkeypatch.setattr(endpoint_module, "FETCH_DEADLINE_S", _FOR_EVER_S)
    error = failure(endpoint)
    assert (str(error), error.refused, error.connection) == (
        "token endpoint: 3 calls that were given up have still not ended", False, False
    )  # fmt: skip
    slow_names.set()
    calls_end()
    assert endpoint.ask().status == 200
    assert len(issuer.received) == 1


def test_fetch_in_flight_at_close_ends(issuer, make_endpoint, callers) -> None:
    asked = threading.Event()
    issuer.behave(lambda peer: (asked.set(), issuer.ended.wait(10)))
    endpoint = make_endpoint(issuer.url)
    asking = callers(1, endpoint.ask)
    assert asked.wait(10)
    endpoint.close()
    assert isinstance(asking.outcomes()[0], TokenFetchError)


def test_observer_is_not_given_what_comes_after_the_deadline(issuer, trusting_nobody, calls_end) -> None:
    let_go = threading.Event()
    issuer.behave(lambda peer: (let_go.wait(10), peer.sendall(b"HTTP/1.1 200 OK\r\n\r\n")))
    seen: list[object] = []
    endpoint = endpoint_module.TokenEndpoint(issuer.url, tls=lambda: trusting_nobody, observe=seen.append)
    with pytest.raises(TokenFetchError):
        endpoint.ask()
    let_go.set()
    calls_end()
    assert seen == []
