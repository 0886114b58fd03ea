import gzip
import logging
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from email.utils import formatdate
from typing import NoReturn

import pytest

from proxy.tokens.sources.base import TokenFetchError
from proxy.tokens.sources.endpoint import REPLY_MOST_BYTES, Reply, TokenEndpoint


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_answer_of_2xx_is_handed_on_with_its_fields_and_body(issuer, make_endpoint, status: int) -> None:
    issuer.answer(b"" if status == 204 else b"body", status, X_Seen="yes")
    reply = make_endpoint(issuer.url).ask(data={"a": "b"})
    assert (reply.status, reply.fields["X-Seen"]) == (status, "yes")
    assert reply.body == (b"" if status == 204 else b"body")


@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
def test_request_goes_out_as_described_with_plain_fields_around_it(issuer, make_endpoint, method: str) -> None:
    make_endpoint(issuer.url + "?a=1", method).ask(headers={"X-Api-Key": "k"}, json={"b": 2})
    (received,) = issuer.received
    assert (received.method, received.target, received.body) == (method, "/token?a=1", b'{"b":2}')
    named = ("x-api-key", "accept", "accept-encoding", "user-agent", "content-type")
    expected = ["k", "application/json", "identity", "llm-proxy", "application/json"]
    assert [received.fields[name] for name in named] == expected


def test_each_fetch_has_a_connection_of_its_own(issuer, make_endpoint) -> None:
    body = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    issuer.behave(lambda peer: (peer.sendall(body), issuer.ended.wait(0.05)))
    endpoint = make_endpoint(issuer.url)
    endpoint.ask()
    endpoint.ask()
    assert issuer.connections == 2


def test_environment_decides_nothing(issuer, other_issuer, make_endpoint, monkeypatch, tmp_path) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, other_issuer.url)
    make_endpoint(issuer.url).ask()
    assert "authorization" not in issuer.received[0].fields
    assert other_issuer.connections == 0


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_is_not_followed_and_the_other_host_gets_no_byte(
    issuer, other_issuer, make_endpoint, failure, status: int
) -> None:
    issuer.answer(b"", status, Location=other_issuer.url)
    error = failure(make_endpoint(issuer.url))
    assert str(error) == f"token endpoint: status {status}, and redirects are not followed"
    assert (error.refused, error.connection, other_issuer.connections) == (False, False, 0)


@pytest.mark.parametrize(
    ("status", "refused"),
    [(status, status in (400, 401, 403)) for status in (400, 401, 402, 403, 404, 408, 429, 500, 502, 503, 504)],
)
def test_only_400_401_and_403_say_that_our_credentials_are_refused(
    issuer, make_endpoint, failure, mark: str, status: int, refused: bool
) -> None:
    issuer.answer({"error": "invalid_client", "error_description": mark}, status)
    error = failure(make_endpoint(issuer.url))
    assert str(error) == f"token endpoint: status {status}, invalid_client"
    assert (error.refused, error.connection, error.retry_after_s) == (refused, False, None)


@pytest.mark.parametrize("status", [429, 503, 400])
@pytest.mark.parametrize(
    ("value", "expected_s"),
    [
        pytest.param("7", 7.0, id="seconds"),
        pytest.param("0", 0.0, id="zero"),
        pytest.param("1000000000", 1e9, id="many-seconds"),
        pytest.param("1e9", None, id="not-a-whole-number"),
        pytest.param("soon", None, id="junk"),
        pytest.param("", None, id="empty"),
    ],
)
def test_retry_after_comes_with_the_error(issuer, make_endpoint, failure, status, value, expected_s) -> None:
    issuer.answer(b"", status, Retry_After=value)
    assert failure(make_endpoint(issuer.url)).retry_after_s == expected_s


def test_retry_after_of_a_date_is_the_time_until_then(issuer, make_endpoint, failure) -> None:
    issuer.answer(b"", 503, Retry_After=formatdate(time.time() + 100, usegmt=True))
    assert 90 < failure(make_endpoint(issuer.url)).retry_after_s <= 100


def _reset(peer: socket.socket) -> None:
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _cut(head: bytes) -> Callable[[socket.socket], None]:
    return lambda peer: peer.sendall(head)


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        pytest.param(_reset, "ReadError: Connection reset by peer", id="reset"),
        pytest.param(_cut(b""), "RemoteProtocolError", id="closed-without-an-answer"),
        pytest.param(_cut(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}"), "RemoteProtocolError", id="cut-body"),
        pytest.param(_cut(b"SSH-2.0-s3cret-mark\r\n\r\n"), "RemoteProtocolError", id="garbage"),
        pytest.param(_cut(b"HTTP/1.1 200 OK\r\ns3cret-mark\r\n\r\n"), "RemoteProtocolError", id="bad-field"),
    ],
)
def test_broken_answer_is_a_connection_error(issuer, make_endpoint, failure, behaviour, reason: str) -> None:
    issuer.behave(behaviour)
    error = failure(make_endpoint(issuer.url))
    assert (str(error), error.refused, error.connection) == (f"token endpoint: {reason}", False, True)


def test_refused_connection_is_a_connection_error(make_endpoint, failure) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    error = failure(make_endpoint(f"http://127.0.0.1:{port}/"))
    assert (str(error), error.connection) == ("token endpoint: ConnectError: Connection refused", True)


def test_name_that_cannot_be_resolved_is_a_connection_error(make_endpoint, failure, resolve_by) -> None:
    def resolve(*_: object) -> NoReturn:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    resolve_by(resolve)
    error = failure(make_endpoint("http://issuer.invalid/"))
    assert (str(error), error.connection) == ("token endpoint: ConnectError: Name or service not known", True)


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param({"headers": {"Authorization": "s3cret-mark\r\nX: y"}}, id="line-break-in-a-field"),
        pytest.param({"headers": {"Authorization": "s3cret-mark\u20ac"}}, id="field-beyond-latin-1"),
        pytest.param({"json": {"a": "s3cret-mark\udcff"}}, id="lone-surrogate-in-json"),
        pytest.param({"data": {"a": "s3cret-mark\udcff"}}, id="lone-surrogate-in-a-form"),
        pytest.param({"json": {"a": float("nan"), "b": "s3cret-mark"}}, id="nan-in-json"),
    ],
)
def test_secret_that_cannot_be_sent_is_a_failed_fetch_that_does_not_show_it(issuer, make_endpoint, parts) -> None:
    with pytest.raises(TokenFetchError) as caught:
        make_endpoint(issuer.url).ask(**parts)
    assert "s3cret-mark" not in str(caught.value)
    assert not caught.value.refused
    assert issuer.received == []


@pytest.mark.parametrize(
    ("length", "fits"),
    [
        pytest.param(REPLY_MOST_BYTES - 1, True, id="just-below"),
        pytest.param(REPLY_MOST_BYTES, True, id="at-the-limit"),
        pytest.param(REPLY_MOST_BYTES + 1, False, id="just-above"),
    ],
)
def test_reply_of_up_to_one_mebibyte_is_read(issuer, make_endpoint, failure, length: int, fits: bool) -> None:
    issuer.answer(b"x" * length)
    if fits:
        assert len(make_endpoint(issuer.url).ask().body) == length
    else:
        error = failure(make_endpoint(issuer.url))
        assert str(error) == f"token endpoint: reply of more than {REPLY_MOST_BYTES} bytes"


@pytest.mark.parametrize("status", [200, 500])
def test_reply_without_end_is_broken_off(issuer, make_endpoint, failure, status: int) -> None:
    sent = [0]

    def pour(peer: socket.socket) -> None:
        peer.sendall(b"HTTP/1.1 %d Status\r\nContent-Length: 104857600\r\n\r\n" % status)
        while not issuer.ended.is_set():
            sent[0] += peer.send(b"x" * 65536)

    issuer.behave(pour)
    failure(make_endpoint(issuer.url))
    issuer.close()
    assert sent[0] < 50 * 1024 * 1024


def test_packed_reply_is_not_unpacked(issuer, make_endpoint) -> None:
    bomb = gzip.compress(b"x" * 10_000_000)
    issuer.answer(bomb, Content_Encoding="gzip")
    assert make_endpoint(issuer.url).ask().body == bomb


def test_trusted_certificate_is_spoken_to(tls_issuer, make_endpoint, trusting_issuer) -> None:
    assert make_endpoint(tls_issuer.url, ssl_context=trusting_issuer).ask().status == 200


def test_certificate_of_an_unknown_authority_gets_no_request(tls_issuer, make_endpoint, failure) -> None:
    error = failure(make_endpoint(tls_issuer.url))
    assert "certificate verify failed" in str(error)
    assert tls_issuer.received == []


def test_certificate_for_another_name_gets_no_request(tls_issuer, make_endpoint, failure, trusting_issuer) -> None:
    error = failure(make_endpoint(f"https://localhost:{tls_issuer.port}/", ssl_context=trusting_issuer))
    assert "Hostname mismatch" in str(error)
    assert tls_issuer.received == []


def test_tls_files_are_read_for_each_fetch(tls_issuer, trusting_nobody, trusting_issuer, failure) -> None:
    contexts = iter([trusting_nobody, trusting_issuer])
    endpoint = TokenEndpoint(tls_issuer.url, tls=lambda: next(contexts))
    failure(endpoint)
    assert endpoint.ask().status == 200


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        pytest.param(
            FileNotFoundError(2, "No such file or directory", "a.pem"), "No such file or directory", id="file"
        ),
        pytest.param(ssl.SSLError(9, "[SSL] PEM lib"), "[SSL] PEM lib", id="no-pem"),
        pytest.param(OSError(), "OSError", id="nothing-said"),
    ],
)
def test_tls_file_that_cannot_be_read_is_a_refused_fetch_without_a_call(issuer, failure, fault, reason: str) -> None:
    def tls() -> ssl.SSLContext:
        raise fault

    error = failure(TokenEndpoint(issuer.url, tls=tls))
    assert (str(error), error.refused) == (f"ca_bundle or client_cert cannot be read: {reason}", False)
    assert issuer.connections == 0


def test_plain_http_on_a_tls_port_is_a_failed_fetch(issuer, make_endpoint, failure) -> None:
    issuer.behave_at_connect(lambda peer: (peer.recv(65536), peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")))
    assert "SSL" in str(failure(make_endpoint(issuer.url.replace("http:", "https:"))))


def test_fetch_that_has_ended_leaves_no_thread_behind(issuer, make_endpoint, failure) -> None:
    endpoint = make_endpoint(issuer.url)
    endpoint.ask()
    issuer.answer(b"", 500)
    failure(endpoint)
    assert "token-call" not in [thread.name for thread in threading.enumerate()]


def test_fetch_after_close_is_a_failed_fetch(issuer, make_endpoint, failure) -> None:
    endpoint = make_endpoint(issuer.url)
    endpoint.close()
    assert not failure(endpoint).connection
    assert issuer.connections == 0


def test_library_log_lines_at_debug_hold_no_secret(issuer, make_endpoint, mark: str, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    issuer.answer({"access_token": mark})
    make_endpoint(issuer.url).ask(data={"client_secret": mark}, headers={"Authorization": mark})
    assert mark in issuer.received[0].body.decode()
    assert mark not in caplog.text


@pytest.mark.parametrize("status", [200, 302, 401, 500])
def test_observer_is_given_every_reply_before_it_is_judged(issuer, trusting_nobody, status: int) -> None:
    issuer.answer({"access_token": "t"}, status)
    seen: list[Reply] = []
    endpoint = TokenEndpoint(issuer.url, tls=lambda: trusting_nobody, observe=seen.append)
    with suppress(TokenFetchError):
        endpoint.ask()
    endpoint.close()
    assert [(reply.status, reply.body) for reply in seen] == [(status, b'{"access_token": "t"}')]


def test_observer_is_given_nothing_where_there_is_no_whole_reply(issuer, trusting_nobody) -> None:
    issuer.behave(_cut(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}"))
    seen: list[Reply] = []
    endpoint = TokenEndpoint(issuer.url, tls=lambda: trusting_nobody, observe=seen.append)
    with pytest.raises(TokenFetchError):
        endpoint.ask()
    endpoint.close()
    assert seen == []


def test_printed_reply_shows_its_status_alone(issuer, make_endpoint, mark: str) -> None:
    issuer.answer({"access_token": mark}, Set_Cookie=mark)
    reply = make_endpoint(issuer.url).ask()
    assert repr(reply) == str(reply) == "Reply(status=200)"
    assert isinstance(reply, Reply)
