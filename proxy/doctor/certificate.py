"""A server's certificate in words: whose, by whom, until when."""

import ssl
from datetime import UTC, datetime

import httpx2
from cryptography import x509

from proxy.upstreams.connection import ConnectionPool
from proxy.upstreams.tunnel import HttpProxy

NAME_MOST_CHARS = 80
PRESENTED_WITHIN_S = 5.0


class Certificate:
    """Of a server; `der` may be anything that one sent."""

    def __init__(self, der: bytes) -> None:
        """Raises ValueError: no certificate that can be read."""
        certificate = x509.load_der_x509_certificate(der)
        self._expires_at = certificate.not_valid_after_utc
        self._subject, self._issuer = _shown(certificate.subject), _shown(certificate.issuer)

    @property
    def days_left(self) -> int:
        return (self._expires_at - datetime.now(UTC)).days

    def __str__(self) -> str:
        return f"of {self._subject}, signed by {self._issuer}, good until {self._expires_at:%Y-%m-%d}"


def presented(host: str, port: int, http_proxy: HttpProxy | None = None) -> Certificate | None:
    """What a server shows to somebody who trusts anything: for one that was refused, which Python hands out to nobody.

    A name that the operator does not know there may be that of a proxy on the way. Nothing is sent.
    """
    pool = ConnectionPool(host, port, tls=None, connect_s=PRESENTED_WITHIN_S, http_proxy=http_proxy)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with context.wrap_socket(pool.open().sock, server_hostname=host) as tls:
            return Certificate(tls.getpeercert(binary_form=True) or b"")
    except (OSError, ValueError, httpx2.TransportError):
        return None


def _shown(name: x509.Name) -> str:
    """Of a name, in the form of RFC 4514, what fits on a line."""
    text = name.rfc4514_string()
    if not text or not text.isprintable():
        return "an odd name" if text else "no name"
    return f"{text[:NAME_MOST_CHARS]}..." if len(text) > NAME_MOST_CHARS else text
