"""Certificates in PEM files, judged when the settings are read: what OpenSSL would refuse later is a fault here.

With cryptography and not with ssl, which nobody may import before gevent has patched it (gunicorn.conf.py).
Callers: the sections in schema.py, upstreams.py and sources.py, which name the two types.
"""

import re
import warnings
from pathlib import Path
from typing import Annotated, TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import Certificate, load_pem_x509_certificates
from pydantic import AfterValidator

from config.errors import Fault
from config.values import ExistingFile

# As OpenSSL finds them: at the start of a line, or after a byte order mark.
_BEGIN = re.compile(rb"^(?:\xef\xbb\xbf)?-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----", re.MULTILINE)


def check_ca_bundle(file: Path) -> Path:
    """The file itself when it holds certificates and each can be read. Raises Fault, which quotes nothing of it."""
    try:
        _certificates(file.read_bytes())
    except (OSError, ValueError):
        raise Fault("must be a PEM file with a certificate or several, each of them whole") from None
    return file


def check_client_cert(file: Path) -> Path:
    """The file itself when it holds a key and a chain that begins with that key's certificate. Raises Fault as above.

    A key with a passphrase is refused: OpenSSL would ask for it at the terminal.
    """
    try:
        pem = file.read_bytes()
        key = load_pem_private_key(pem, password=None)
        is_pair = _certificates(pem)[0].public_key() == key.public_key()
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: there is a passphrase
        is_pair = False
    if not is_pair:
        raise Fault(
            "must be a PEM file with the client's certificate first, then its issuers' if need be, "
            "and the certificate's private key without a passphrase"
        )
    return file


def _certificates(pem: bytes) -> list[Certificate]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of roots that bend RFC 5280, such as a serial number 0, which OpenSSL takes
        found = load_pem_x509_certificates(pem)
    if len(found) != len(_BEGIN.findall(pem)):  # one is cut off, or indented
        raise ValueError
    return found


CaBundle: TypeAlias = Annotated[ExistingFile, AfterValidator(check_ca_bundle)]
ClientCert: TypeAlias = Annotated[ExistingFile, AfterValidator(check_client_cert)]
