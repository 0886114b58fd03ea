"""The TLS context of a server follows its files, and outlives their absence."""

import ssl
from pathlib import Path

import pytest

from proxy.upstreams.tls import ClientTls
from tests.support.authority import Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def bundle(authority: Authority, tmp_path: Path) -> Path:
    file = tmp_path / "ca.pem"
    file.write_bytes(authority.ca_bundle.read_bytes())
    return file


def test_context_verifies_and_is_made_once(bundle: Path) -> None:
    tls = ClientTls(bundle)
    context = tls.context()
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert tls.context() is context


def test_changed_file_makes_a_new_context(bundle: Path, tmp_path: Path) -> None:
    tls = ClientTls(bundle)
    context = tls.context()
    new = tmp_path / "new.pem"
    new.write_bytes(bundle.read_bytes())
    new.rename(bundle)
    assert tls.context() is not context


@pytest.mark.parametrize("content", [None, b"", b"no PEM"], ids=["gone", "empty", "garbage"])
def test_file_that_cannot_be_used_any_more_leaves_the_context_that_was(bundle: Path, content: bytes | None) -> None:
    tls = ClientTls(bundle)
    context = tls.context()
    bundle.unlink()
    if content is not None:
        bundle.write_bytes(content)
    assert tls.context() is context


def test_file_that_never_could_be_used_is_an_error_until_it_can(bundle: Path) -> None:
    good = bundle.read_bytes()
    bundle.unlink()
    tls = ClientTls(bundle)
    with pytest.raises(OSError, match="No such file"):
        tls.context()
    bundle.write_bytes(good)
    assert tls.context() is not None
