"""Token endpoints on the loopback and the endpoint objects that ask them."""

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from proxy.tokens.sources.endpoint import TokenEndpoint
from tests.support.certificates import self_signed
from tests.support.token_issuer import Issuer


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    issuer = Issuer()
    yield issuer
    issuer.close()


@pytest.fixture
def other_issuer() -> Iterator[Issuer]:
    issuer = Issuer()
    yield issuer
    issuer.close()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and certificate of 127.0.0.1, signed by itself."""
    return self_signed(tmp_path_factory.mktemp("tls") / "issuer.pem", "issuer")


@pytest.fixture
def tls_issuer(certificate: Path) -> Iterator[Issuer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    issuer = Issuer(context)
    yield issuer
    issuer.close()


@pytest.fixture(scope="session")
def trusting_nobody() -> ssl.SSLContext:
    """A verifying context without any certificate; quick to make, and enough for plain HTTP."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@pytest.fixture
def trusting_issuer(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate))


@pytest.fixture
def make_endpoint(trusting_nobody: ssl.SSLContext) -> Iterator[Callable[..., TokenEndpoint]]:
    """Builds endpoints and closes them after the test."""
    endpoints: list[TokenEndpoint] = []

    def make_endpoint(url: str, method: str = "POST", ssl_context: ssl.SSLContext | None = None) -> TokenEndpoint:
        endpoints.append(TokenEndpoint(url, method=method, ssl_context=ssl_context or trusting_nobody))
        return endpoints[-1]

    yield make_endpoint
    for endpoint in endpoints:
        endpoint.close()
