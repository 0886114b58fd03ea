"""Fixtures that all tests share: the sandbox, and proxies as real gunicorn processes in front of it.

A process is started once for each configuration and kept while it is asked for, since a start costs more than a test.
What a test switches on in the sandbox is switched off before the next.
"""

import ssl
from collections.abc import Iterator
from typing import Any

import certifi
import pytest

from tests.support.proxy_process import ProxyFarm, ProxyProcess
from tests.support.sandbox_client import SandboxClient

WORKER_CLASSES = ("gevent", "gthread")


@pytest.fixture(scope="session", autouse=True)
def _public_certificates_are_read_once() -> Iterator[None]:
    """httpx reads them for each client that it makes, 30 ms long, and no test talks to a server that needs them."""
    create = ssl.create_default_context
    public = create(cafile=certifi.where())

    def create_or_keep(*arguments: Any, **options: Any) -> ssl.SSLContext:
        is_public = not arguments and options == {"cafile": certifi.where()}
        return public if is_public else create(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssl, "create_default_context", create_or_keep)
        yield


@pytest.fixture(scope="session")
def _sandbox_of_session() -> Iterator[SandboxClient]:
    with SandboxClient.start() as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(_sandbox_of_session: SandboxClient) -> SandboxClient:
    _sandbox_of_session.reset()
    return _sandbox_of_session


@pytest.fixture
def own_sandbox() -> Iterator[SandboxClient]:
    """A sandbox for this test alone: where tokens are revoked, other proxies would use up their forced fetches."""
    with SandboxClient.start() as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyFarm]:
    with ProxyFarm(tmp_path_factory.mktemp("proxies")) as farm:
        yield farm


@pytest.fixture(params=WORKER_CLASSES)
def worker_class(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def proxy(farm: ProxyFarm, sandbox: SandboxClient, worker_class: str) -> ProxyProcess:
    """A proxy with one worker and the settings that most tests want."""
    return farm.proxy(sandbox.config(server={"worker_class": worker_class}))
