"""A server's certificate in words: whose, by whom, until when."""

import ssl
from datetime import UTC, datetime

from cryptography import x509

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


def presented(host: str, port: int) -> Certificate | None:
    """What a server shows to somebody who trusts anything: for one that was refused, which Python hands out to nobody.

    A name that the operator does not know there may be that of a proxy on the way. Nothing is sent.
    """
    try:
        pem = ssl.get_server_certificate((host, port), timeout=PRESENTED_WITHIN_S)
        return Certificate(ssl.PEM_cert_to_DER_cert(pem))
    except (OSError, ValueError):
        return None


def _shown(name: x509.Name) -> str:
    """Of a name, in the form of RFC 4514, what fits on a line."""
    text = name.rfc4514_string()
    if not text or not text.isprintable():
        return "an odd name" if text else "no name"
    return f"{text[:NAME_MOST_CHARS]}..." if len(text) > NAME_MOST_CHARS else text
