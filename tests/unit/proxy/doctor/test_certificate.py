import socket
import ssl
from pathlib import Path

import pytest

from proxy.doctor.certificate import NAME_MOST_CHARS, Certificate, presented
from tests.support.authority import Authority
from tests.support.scripted_upstream import ScriptedUpstream
from tests.support.tls_front import TlsFront


def der_of(pem: Path) -> bytes:
    text = pem.read_text()
    return ssl.PEM_cert_to_DER_cert(text[text.index("-----BEGIN CERTIFICATE") :])


def test_it_says_whose_it_is_and_by_whom_and_until_when(authority: Authority) -> None:
    certificate = Certificate(der_of(authority.issue("issuer.example.com", days=(-3, 9))))
    assert str(certificate).startswith("of CN=issuer.example.com, signed by CN=Test Authority, good until 2")
    assert certificate.days_left == 8  # whole ones


def test_days_left_of_an_expired_one_are_below_zero(authority: Authority) -> None:
    assert Certificate(der_of(authority.issue(days=(-9, -3)))).days_left == -4


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("x" * 60, "CN=" + "x" * 60),
        ("," * 60, ("CN=" + "\\," * 60)[:NAME_MOST_CHARS] + "..."),
        ("a\x1b[31mb", "an odd name"),
    ],
    ids=["plain", "long-by-its-escapes", "control-character"],
)
def test_names_fit_on_a_line(tmp_path: Path, name: str, shown: str) -> None:
    certificate = Certificate(der_of(Authority(tmp_path, name).ca_bundle))
    assert str(certificate).startswith(f"of {shown}, signed by")


@pytest.mark.parametrize("der", [b"", b"\x30\x03\x02\x01\x05", b"nonsense"])
def test_what_is_no_certificate_is_told_as_such(der: bytes) -> None:
    with pytest.raises(ValueError):
        Certificate(der)


def test_presented_is_what_a_server_shows_whoever_signed_it(server: ScriptedUpstream, authority: Authority) -> None:
    with TlsFront(server.url, authority.server_context(authority.issue("other.example.com"))) as front:
        assert "CN=other.example.com" in str(presented("127.0.0.1", front.port))
    assert server.requests == []


def test_nothing_is_presented_without_tls(server: ScriptedUpstream) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = int(closed.getsockname()[1])
    assert presented("127.0.0.1", port) is None
