"""Token endpoints on the loopback and the endpoint objects that ask them."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from proxy.tokens.sources.base import TokenFetchError
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


@pytest.fixture
def far_from_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This host's own zone is hours behind UTC."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "EST5EDT")
        time.tzset()
        yield
    time.tzset()


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
        endpoints.append(TokenEndpoint(url, method=method, tls=lambda: ssl_context or trusting_nobody))
        return endpoints[-1]

    yield make_endpoint
    for endpoint in endpoints:
        endpoint.close()


@pytest.fixture
def failure(mark: str) -> Callable[..., TokenFetchError]:
    """The error of a request that must fail; its text is checked to be one line without a secret or a body."""

    def failure(endpoint: TokenEndpoint) -> TokenFetchError:
        with pytest.raises(TokenFetchError) as caught:
            endpoint.ask(data={"secret": mark}, headers={"Authorization": mark})
        assert mark not in str(caught.value) + repr(caught.value)
        assert "\n" not in str(caught.value)
        return caught.value

    return failure


@pytest.fixture
def resolve_by(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., object]], None]:
    """Puts a function in place of getaddrinfo for all new connections, also where gevent has replaced the module's."""
    where = socket.create_connection.__globals__
    return lambda resolve: monkeypatch.setitem(where, "getaddrinfo", resolve)


@pytest.fixture
def calls_end() -> Callable[[], None]:
    """Waits until all calls have ended, those that were given up too."""

    def calls_end() -> None:
        for thread in threading.enumerate():
            if thread.name == "token-call":
                thread.join(10)
                assert not thread.is_alive()

    return calls_end
