"""The way to a server, step by step: its name's addresses, a TCP connection, the TLS handshake. Sends no request.

With an HTTP proxy the name and the connection are the proxy's, and a tunnel through it is one more step. Used for
token endpoints and upstreams alike, before either is asked.
"""

import socket
import ssl
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx2

from proxy.doctor.causes import connect_cause, lookup_cause, tls_cause, tunnel_cause
from proxy.doctor.certificate import Certificate, presented
from proxy.doctor.report import Report, in_milliseconds
from proxy.upstreams.tunnel import HttpProxy, TunnelError, open_tunnel, proxy_address

DAYS_LEFT_LEAST = 14
ADDRESSES_MOST = 4

TlsContext = Callable[[], ssl.SSLContext]


def shown_url(url: str) -> str:
    """The URL without its query, which may hold a secret."""
    return url.partition("?")[0]


def check_way(
    report: Report, url: str, tls_context: TlsContext, *, connect_s: float, http_proxy: HttpProxy | None = None
) -> bool:
    """Whether a request can be sent there. `tls_context` makes the context that the request would have."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    proxy = None if http_proxy is None else http_proxy()
    addresses = _look_up(report, *((host, port) if proxy is None else proxy_address(proxy)))
    if not addresses:
        return False
    sock = _connect(report, addresses, connect_s)
    if sock is None:
        return False
    with sock:
        if proxy is not None and not _open_tunnel(report, sock, proxy, host, port, connect_s):
            return False
        if parts.scheme == "https":
            return _shake_hands(report, sock, tls_context, lambda: presented(host, port, http_proxy), host)
    report.skip("TLS", "the URL says http: nothing is encrypted")
    return True


def _look_up(report: Report, host: str, port: int) -> list[tuple[Any, ...]]:
    """What getaddrinfo gives, in its order: the order in which addresses are tried."""
    begun = time.monotonic()
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        cause = lookup_cause(error) if isinstance(error, OSError) else "this is no host name"
        report.fail("name lookup", f"{host}: {cause}")
        return []
    addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
    more = f" and {len(addresses) - ADDRESSES_MOST} more" if len(addresses) > ADDRESSES_MOST else ""
    took = in_milliseconds(time.monotonic() - begun)
    shown = "an address by itself" if addresses == [host] else ", ".join(addresses[:ADDRESSES_MOST])
    report.ok("name lookup", f"{host} is {shown}{more} ({took})")
    return found


def _connect(report: Report, addresses: list[tuple[Any, ...]], connect_s: float) -> socket.socket | None:
    for family, kind, protocol, _, address in addresses:
        sock = socket.socket(family, kind, protocol)
        sock.settimeout(connect_s)
        where, begun = _where(address), time.monotonic()
        try:
            sock.connect(address)
        except OSError as error:
            sock.close()
            cause = connect_cause(error)
            continue_with = report.warn if address is not addresses[-1][-1] else report.fail
            continue_with("connect", f"{where}: {cause}")
            continue
        report.ok("connect", f"{where} in {in_milliseconds(time.monotonic() - begun)}")
        return sock
    return None


def _open_tunnel(
    report: Report, sock: socket.socket, proxy: httpx2.Proxy, host: str, port: int, connect_s: float
) -> bool:
    where, begun = _where((host, port)), time.monotonic()
    try:
        open_tunnel(sock, proxy, host, port, begun + connect_s)
    except (TunnelError, OSError) as error:
        report.fail("tunnel", f"to {where}: {tunnel_cause(error)}")
        return False
    report.ok("tunnel", f"to {where} in {in_milliseconds(time.monotonic() - begun)}")
    return True


def _where(address: Any) -> str:
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _shake_hands(
    report: Report,
    sock: socket.socket,
    tls_context: TlsContext,
    present: Callable[[], Certificate | None],
    host: str,
) -> bool:
    try:
        context = tls_context()
    except OSError as error:
        report.fail("TLS", f"ca_bundle or client_cert cannot be used: {_file_cause(error)}")
        return False
    try:
        with context.wrap_socket(sock, server_hostname=host) as tls:
            _report_certificate(report, tls)
    except OSError as error:
        refused = present() if isinstance(error, ssl.SSLCertVerificationError) else None
        report.fail("TLS", tls_cause(error, host) + (f"; it is {refused}" if refused else ""))
        return False
    return True


def _file_cause(error: OSError) -> str:
    """OpenSSL's words tell a missing key from a wrong one; an operator needs to know which of all this is meant."""
    if isinstance(error, ssl.SSLError):
        return f"no PEM with what is needed in it ({(error.reason or 'unreadable').replace('_', ' ').lower()})"
    return error.strerror or type(error).__name__


def _report_certificate(report: Report, tls: ssl.SSLSocket) -> None:
    try:
        certificate = Certificate(tls.getpeercert(binary_form=True) or b"")
    except ValueError:
        report.ok("TLS", f"{tls.version()}; a good certificate that cannot be shown")
        return
    text = f"{tls.version()}; certificate {certificate}, {certificate.days_left} days left"
    if certificate.days_left < DAYS_LEFT_LEAST:
        report.warn("TLS", f"{text}: its owner must renew it soon")
    else:
        report.ok("TLS", text)
