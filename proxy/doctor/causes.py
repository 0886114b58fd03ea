"""Why a connection did not come about, in plain words and with what to do: socket, proxy and TLS errors. Pure."""

import socket
import ssl

from proxy.upstreams.tunnel import TunnelError

# OpenSSL's X509_V_ERR_ numbers (openssl-verify(1)).
_NOT_YET_VALID, _EXPIRED = 9, 10
_UNKNOWN_CA = (2, 18, 19, 20, 21)
_WRONG_NAME = (62, 64)

_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "UNKNOWN_PROTOCOL")
_CLIENT_CERT = ("CERTIFICATE_REQUIRED", "HANDSHAKE_FAILURE", "BAD_CERTIFICATE", "ALERT_UNKNOWN_CA", "ALERT_CERTIFICATE")
_OLD_TLS = ("PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL", "VERSION_TOO_LOW", "NO_PROTOCOLS_AVAILABLE")


def lookup_cause(error: OSError) -> str:
    """For an error of getaddrinfo."""
    if error.errno == socket.EAI_AGAIN:
        return "the name server does not answer; see /etc/resolv.conf of this host and the network to it"
    if error.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)):
        return "no such name; see how it is spelt in the config, and whether this host's name server should know it"
    return error.strerror or "the name cannot be looked up"


def connect_cause(error: OSError) -> str:
    """For an error of connect."""
    if isinstance(error, ConnectionRefusedError):
        return "connection refused: nothing listens there; the port is wrong or the service is down"
    if isinstance(error, TimeoutError):
        return (
            "no answer: a firewall drops the packets, or the host is down; "
            "HTTPS_PROXY does not count (an upstream may have http_proxy)"
        )
    return f"{error.strerror or type(error).__name__}; see the route from this host to that address"


def tunnel_cause(error: OSError | TunnelError) -> str:
    """For a proxy that was reached, and opened no way through it."""
    if isinstance(error, TimeoutError):
        return "it does not answer: it hangs, waits for the upstream, or is no HTTP proxy"
    if not isinstance(error, TunnelError) or error.status is None:
        said = str(error) if isinstance(error, TunnelError) else "it broke off"
        return f"{said}: host and port in http_proxy must be those of an HTTP proxy, reached without TLS"
    return f"{error}: {_refusal(error.status)}"


def _refusal(status: int) -> str:
    if status == 407:
        return "it wants a user and a password, or other ones, than http_proxy has (sent as Basic)"
    if status in (401, 403):
        return "it does not let this host through, or not to that name or port; its owner can"
    if status >= 500 and status != 501:
        return "it has no way to the upstream itself: see the name and port of base_url, or ask its owner"
    return "it makes no tunnels (CONNECT), or none to that port: see host and port in http_proxy, or ask its owner"


def tls_cause(error: OSError, host: str) -> str:
    """For an error of the handshake, or of the first bytes after it (TLS 1.3 refuses a client only then)."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _certificate_cause(error, host)
    reason: str = getattr(error, "reason", None) or ""
    if any(part in reason for part in _NO_TLS):
        return "the server does not speak TLS on this port: the URL should say http, or another port"
    if any(part in reason for part in _CLIENT_CERT):
        return "the server refused the handshake: mostly it wants a client certificate that it knows; set client_cert"
    if any(part in reason for part in _OLD_TLS):
        return "the server has only versions of TLS older than 1.2, which are not used"
    if isinstance(error, ssl.SSLEOFError | ConnectionError):
        return (
            "the server broke off during the handshake: it does not speak TLS on this port, does not know the name, "
            "or wants a client certificate (client_cert)"
        )
    if isinstance(error, TimeoutError):
        return "the server does not answer the handshake: it does not speak TLS on this port, or something holds it up"
    return reason.replace("_", " ").lower() or error.strerror or type(error).__name__


def _certificate_cause(error: ssl.SSLCertVerificationError, host: str) -> str:
    code = error.verify_code
    if code in _UNKNOWN_CA:
        return (
            "the certificate is from an authority that this host does not know, or its chain is not whole; "
            "set ca_bundle to a PEM file with that authority's certificate"
        )
    if code in _WRONG_NAME:
        return f"the certificate is for another name than {host}; use a name that it holds in the URL"
    if code == _EXPIRED:
        return "the certificate has expired; its owner must renew it (or this host's clock is ahead)"
    if code == _NOT_YET_VALID:
        return "the certificate is not valid yet: this host's clock is behind, or the certificate was made too early"
    return f"the certificate is not accepted: {error.verify_message}"
