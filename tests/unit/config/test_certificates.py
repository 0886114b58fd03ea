"""Which PEM files are taken; OpenSSL, which reads them later, must be of the same mind."""

import shlex
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from config.certificates import check_ca_bundle, check_client_cert
from config.errors import Fault
from tests.support.certificates import self_signed

_NO_BUNDLE = "must be a PEM file with a certificate or several, each of them whole"
_NO_PAIR = (
    "must be a PEM file with the client's certificate first, then its issuers' if need be, "
    "and the certificate's private key without a passphrase"
)
_MARK = b"s3cret-mark"
_BROKEN = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


def _openssl(arguments: str, stdin: bytes = b"") -> bytes:
    return subprocess.run(shlex.split(f"openssl {arguments}"), input=stdin, check=True, capture_output=True).stdout


class Pair:
    """A key and its certificate."""

    def __init__(self, pem: bytes) -> None:
        at = pem.index(b"-----BEGIN CERTIFICATE")
        self.key, self.certificate = pem[:at], pem[at:]


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(self_signed(tmp_path_factory.mktemp("pem") / "ours.pem", "ours").read_bytes())


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(self_signed(tmp_path_factory.mktemp("pem") / "other.pem", "other").read_bytes())


def _bundle_is_taken(file: Path) -> bool:
    try:
        ssl.create_default_context(cafile=str(file))
    except OSError:
        return False
    return True


def _pair_is_taken(file: Path) -> bool:
    try:
        ssl.create_default_context().load_cert_chain(file, password="")
    except OSError:
        return False
    return True


def _with_serial_number_0(pair: Pair) -> bytes:
    return _openssl("req -x509 -new -key /dev/stdin -days 2 -subj /CN=old -set_serial 0", pair.key)


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda ours, _: ours.certificate, id="one"),
        pytest.param(lambda ours, other: ours.certificate + other.certificate, id="two"),
        pytest.param(lambda ours, _: ours.key + ours.certificate, id="with-its-key"),
        pytest.param(
            lambda ours, other: b"# M\xfcller\n" + ours.certificate + b"\n# B\n" + other.certificate, id="notes"
        ),
        pytest.param(lambda ours, _: _openssl("x509 -text", ours.certificate), id="with-its-text"),
        pytest.param(lambda ours, _: ours.certificate.replace(b"\n", b"\r\n"), id="windows-line-breaks"),
        pytest.param(lambda ours, _: b"\xef\xbb\xbf" + ours.certificate, id="byte-order-mark"),
        pytest.param(lambda ours, _: ours.certificate.replace(b" CERT", b" X509 CERT"), id="older-name"),
        pytest.param(lambda ours, _: _with_serial_number_0(ours), id="serial-number-0"),
    ],
)
def test_bundle_of_certificates_is_taken(ours: Pair, other: Pair, tmp_path: Path, write) -> None:
    file = tmp_path / "ca.pem"
    file.write_bytes(write(ours, other))
    assert _bundle_is_taken(file)
    assert check_ca_bundle(file) == file


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda *_: b"", id="empty"),
        pytest.param(lambda *_: _MARK, id="text"),
        pytest.param(lambda ours, _: ours.key, id="key-alone"),
        pytest.param(lambda ours, _: _openssl("x509 -outform der", ours.certificate), id="der"),
        pytest.param(lambda ours, _: ours.certificate[:-40], id="cut-off"),
        pytest.param(lambda ours, other: ours.certificate + other.certificate[:-40], id="second-cut-off"),
        pytest.param(lambda ours, _: ours.certificate + _BROKEN, id="second-broken"),
        pytest.param(lambda ours, _: _BROKEN + ours.certificate, id="first-broken"),
        pytest.param(lambda ours, _: ours.certificate.replace(b"\n", b"\\n"), id="escaped-line-breaks"),
        pytest.param(lambda ours, _: b"  " + ours.certificate.replace(b"\n", b"\n  "), id="indented"),
    ],
)
def test_file_that_is_no_bundle_is_a_fault_that_quotes_nothing(ours: Pair, other: Pair, tmp_path: Path, write) -> None:
    file = tmp_path / "ca.pem"
    file.write_bytes(write(ours, other))
    assert not _bundle_is_taken(file)
    with pytest.raises(Fault) as caught:
        check_ca_bundle(file)
    assert str(caught.value) == _NO_BUNDLE


def _key_of(kind: str) -> bytes:
    key = _openssl(f"genpkey {kind}")
    return key + _openssl("req -x509 -new -key /dev/stdin -days 2 -subj /CN=client", key)


def _with_parameters() -> bytes:
    key = _openssl("ecparam -name prime256v1 -genkey")
    assert b"EC PARAMETERS" in key
    return key + _openssl("req -x509 -new -key /dev/stdin -days 2 -subj /CN=client", key)


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda ours, _: ours.key + ours.certificate, id="key-first"),
        pytest.param(lambda ours, _: ours.certificate + ours.key, id="certificate-first"),
        pytest.param(lambda ours, other: ours.certificate + other.certificate + ours.key, id="chain"),
        pytest.param(lambda ours, _: b"\xef\xbb\xbf" + ours.key + ours.certificate, id="byte-order-mark"),
        pytest.param(lambda *_: _key_of("-algorithm rsa -pkeyopt rsa_keygen_bits:2048"), id="rsa"),
        pytest.param(lambda *_: _key_of("-algorithm ed25519"), id="ed25519"),
        pytest.param(lambda *_: _with_parameters(), id="curve-parameters-before-the-key"),
    ],
)
def test_certificate_with_its_key_is_taken(ours: Pair, other: Pair, tmp_path: Path, write) -> None:
    file = tmp_path / "client.pem"
    file.write_bytes(write(ours, other))
    assert _pair_is_taken(file)
    assert check_client_cert(file) == file


def _encrypted(pair: Pair, arguments: str) -> bytes:
    return _openssl(f"{arguments} -passout pass:x", pair.key) + pair.certificate


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda *_: b"", id="empty"),
        pytest.param(lambda *_: _MARK, id="text"),
        pytest.param(lambda ours, _: ours.certificate, id="no-key"),
        pytest.param(lambda ours, _: ours.key, id="no-certificate"),
        pytest.param(lambda ours, _: _encrypted(ours, "pkcs8 -topk8"), id="passphrase"),
        pytest.param(lambda ours, _: _encrypted(ours, "ec -aes128"), id="passphrase-in-the-older-form"),
        pytest.param(lambda ours, other: other.key + ours.certificate, id="key-of-another"),
        pytest.param(lambda ours, other: ours.key + other.certificate + ours.certificate, id="not-the-first"),
        pytest.param(lambda ours, _: ours.key[:-60] + ours.certificate, id="key-cut-off"),
        pytest.param(lambda ours, other: ours.key + ours.certificate + other.certificate[:-40], id="chain-cut-off"),
        pytest.param(lambda ours, _: ours.key + ours.certificate + _BROKEN, id="chain-broken"),
    ],
)
def test_file_without_a_certificate_and_its_key_is_a_fault_that_quotes_nothing(
    ours: Pair, other: Pair, tmp_path: Path, write
) -> None:
    file = tmp_path / "client.pem"
    file.write_bytes(write(ours, other))
    assert not _pair_is_taken(file)
    with pytest.raises(Fault) as caught:
        check_client_cert(file)
    assert str(caught.value) == _NO_PAIR


@pytest.mark.parametrize("check", [check_ca_bundle, check_client_cert])
def test_file_that_cannot_be_read_is_a_fault(tmp_path: Path, check: Callable[[Path], Path]) -> None:
    with pytest.raises(Fault):
        check(tmp_path / "gone.pem")


_CLIENT = "token_url: 'https://u', client_id: a, client_secret: b"
_UPSTREAM = "upstreams: [{name: u, base_url: 'https://u', MEMBERS}]"
_PLACES = [
    pytest.param("token_sources: {s: {type: http_json, url: 'https://u', MEMBERS}}", "token_sources.s", id="http_json"),
    pytest.param(
        f"token_sources: {{s: {{type: client_credentials, {_CLIENT}, MEMBERS}}}}",
        "token_sources.s",
        id="client_credentials",
    ),
    pytest.param(
        f"token_sources: {{s: {{type: token_exchange, {_CLIENT}, subject_token: c, MEMBERS}}}}",
        "token_sources.s",
        id="token_exchange",
    ),
    pytest.param(_UPSTREAM, "upstreams[0]", id="upstream"),
]


@pytest.mark.parametrize(("text", "place"), _PLACES)
def test_files_are_read_with_the_settings(
    settings_of, faults_of, tmp_path: Path, ours: Pair, text: str, place: str
) -> None:
    text = text.replace("MEMBERS", "ca_bundle: ca.pem, client_cert: client.pem")
    for name in ("ca.pem", "client.pem"):
        (tmp_path / name).write_bytes(ours.key + ours.certificate)
    assert settings_of(text)
    for name in ("ca.pem", "client.pem"):
        (tmp_path / name).write_bytes(_MARK)
    assert set(faults_of(text)) == {f"{place}.ca_bundle: {_NO_BUNDLE}", f"{place}.client_cert: {_NO_PAIR}"}


def test_bundle_of_the_token_store_is_read_with_the_settings(faults_of, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(_MARK)
    assert faults_of("token_store: {type: redis, url: 'rediss://r', ca_bundle: ca.pem}") == (
        f"token_store.ca_bundle: {_NO_BUNDLE}",
    )


def test_settings_with_certificates_are_read_without_ssl(
    tmp_path: Path, pytestconfig: pytest.Config, ours: Pair
) -> None:
    # gunicorn.conf.py loads them before gevent has patched ssl, which it cannot do once it is imported.
    (tmp_path / "client.pem").write_bytes(ours.key + ours.certificate)
    (tmp_path / "config.yaml").write_text(
        _UPSTREAM.replace("MEMBERS", "ca_bundle: client.pem, client_cert: client.pem")
    )
    program = "import sys, config; config.load(sys.argv[1]); sys.exit('ssl' in sys.modules)"
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "config.yaml")], check=True, cwd=pytestconfig.rootpath
    )
