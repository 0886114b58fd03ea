"""The errors here are made by hand; that the real ones are told apart is shown in test_network.py."""

import errno
import socket
import ssl

import pytest

from proxy.doctor.causes import connect_cause, lookup_cause, tls_cause, tunnel_cause
from proxy.upstreams.tunnel import TunnelError


def ssl_error(reason: str, kind: type[ssl.SSLError] = ssl.SSLError) -> ssl.SSLError:
    error = kind(1, f"[SSL: {reason}] (_ssl.c:1)")
    error.reason = reason
    return error


def verify_error(code: int, message: str = "words of OpenSSL") -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code, error.verify_message = code, message
    return error


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (socket.EAI_NONAME, "no such name"),
        (socket.EAI_AGAIN, "the name server does not answer"),
        (socket.EAI_MEMORY, "text of the system"),
    ],
)
def test_lookup(code: int, words: str) -> None:
    assert lookup_cause(socket.gaierror(code, "text of the system")).startswith(words)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionRefusedError(), "connection refused"),
        (TimeoutError(), "no answer"),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), "Network is unreachable"),
        (OSError(), "OSError"),
    ],
)
def test_connect(error: OSError, words: str) -> None:
    assert connect_cause(error).startswith(words)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (407, "it wants a user and a password, or other ones"),
        (403, "it does not let this host through"),
        (500, "it has no way to the upstream itself"),
        (502, "it has no way to the upstream itself"),
        (504, "it has no way to the upstream itself"),
        (501, "it makes no tunnels (CONNECT)"),
        (405, "it makes no tunnels (CONNECT)"),
        (302, "it makes no tunnels (CONNECT)"),
    ],
)
def test_proxy_that_refuses(status: int, words: str) -> None:
    cause = tunnel_cause(TunnelError(f"the proxy answered {status}", status))
    assert cause.startswith(f"the proxy answered {status}: {words}")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        pytest.param(TimeoutError(), "it does not answer", id="silence"),
        pytest.param(ConnectionResetError(), "it broke off: host and port in http_proxy", id="reset"),
        pytest.param(TunnelError("the proxy's answer is no HTTP"), "the proxy's answer is no HTTP: host", id="no-http"),
    ],
)
def test_proxy_that_gives_no_status(error: OSError | TunnelError, words: str) -> None:
    assert tunnel_cause(error).startswith(words)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        pytest.param(verify_error(18), "ca_bundle", id="self-signed"),
        pytest.param(verify_error(19), "ca_bundle", id="self-signed-in-the-chain"),
        pytest.param(verify_error(20), "ca_bundle", id="issuer-unknown"),
        pytest.param(verify_error(62), "another name than issuer.example.com", id="name"),
        pytest.param(verify_error(64), "another name than issuer.example.com", id="address"),
        pytest.param(verify_error(10), "has expired", id="expired"),
        pytest.param(verify_error(9), "not valid yet", id="not-yet-valid"),
        pytest.param(verify_error(23), "words of OpenSSL", id="revoked"),
        pytest.param(ssl_error("WRONG_VERSION_NUMBER"), "does not speak TLS", id="plain-http"),
        pytest.param(ssl_error("RECORD_LAYER_FAILURE"), "does not speak TLS", id="plain-http-newer-openssl"),
        pytest.param(ssl_error("TLSV13_ALERT_CERTIFICATE_REQUIRED"), "client_cert", id="no-client-certificate"),
        pytest.param(ssl_error("SSLV3_ALERT_HANDSHAKE_FAILURE"), "client_cert", id="handshake-failure"),
        pytest.param(ssl_error("TLSV1_ALERT_UNKNOWN_CA"), "client_cert", id="unknown-client-certificate"),
        pytest.param(ssl_error("TLSV1_ALERT_PROTOCOL_VERSION"), "older than 1.2", id="old-tls"),
        pytest.param(ssl_error("UNEXPECTED_EOF", ssl.SSLEOFError), "broke off", id="eof"),
        pytest.param(ConnectionResetError(), "broke off", id="reset"),
        pytest.param(TimeoutError(), "does not answer the handshake", id="silence"),
        pytest.param(ssl_error("NO_SUITABLE_GROUPS"), "no suitable groups", id="another"),
    ],
)
def test_tls(error: OSError, words: str) -> None:
    assert words in tls_cause(error, "issuer.example.com")
