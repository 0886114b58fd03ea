"""The one place where TLS contexts are made: for upstreams and for token endpoints."""

import ssl
from pathlib import Path


def client_context(ca_bundle: Path | None = None, client_cert: Path | None = None) -> ssl.SSLContext:
    """A verifying client context: the system's certificates or `ca_bundle`; `client_cert` holds chain and key.

    Raises OSError or ssl.SSLError where a file is missing or is no PEM.
    """
    context = ssl.create_default_context(cafile=None if ca_bundle is None else str(ca_bundle))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if client_cert is not None:
        context.load_cert_chain(client_cert)
    return context
