import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from proxy.doctor.network import check_way, shown_url
from proxy.doctor.report import Report
from proxy.upstreams.tls import client_context
from tests.support.authority import Authority
from tests.support.forward_proxy import ESTABLISHED, ForwardProxy
from tests.support.scripted_upstream import ScriptedUpstream
from tests.support.tls_front import TlsFront

CheckWay = Callable[..., bool]


@pytest.fixture
def check(report: Report, authority: Authority) -> CheckWay:
    """Whether there is a way to a URL for a client that trusts the authority, unless told otherwise."""

    def check(
        url: str,
        ca_bundle: Path | None = authority.ca_bundle,
        client_cert: Path | None = None,
        by: str | None = None,
        connect_s: float = 1,
    ) -> bool:
        http_proxy = None if by is None else lambda: httpx2.Proxy(by)
        return check_way(
            report, url, lambda: client_context(ca_bundle, client_cert), connect_s=connect_s, http_proxy=http_proxy
        )

    return check


def test_query_of_a_url_is_not_shown() -> None:
    assert shown_url("https://a.example.com/token?secret=s3cret-mark") == "https://a.example.com/token"


def test_plain_http_is_connected_to_and_gets_no_byte(
    check: CheckWay, server: ScriptedUpstream, lines: list[str]
) -> None:
    assert check(server.url + "/token?secret=s3cret-mark")
    assert [line.partition(":")[0] for line in lines] == ["ok    name lookup", "ok    connect", "skip  TLS"]
    assert server.requests == []


def test_name_is_shown_with_its_addresses(check: CheckWay, server: ScriptedUpstream, lines: list[str]) -> None:
    check(f"http://localhost:{server.port}/")
    assert "localhost is " in lines[0]
    assert "127.0.0.1" in lines[0]


def test_address_that_refuses_is_a_warning_where_another_answers(
    check: CheckWay, server: ScriptedUpstream, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        refusing = closed.getsockname()
    stream = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *_, **__: [(*stream, refusing), (*stream, ("127.0.0.1", server.port))]
    )
    assert check("http://issuer.example.com/")
    assert [line.partition(":")[0] for line in lines[1:3]] == ["warn  connect", "ok    connect"]


def test_refused_port_is_told(check: CheckWay, lines: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = int(closed.getsockname()[1])
    assert not check(f"https://127.0.0.1:{port}/")
    assert lines[-1] == (
        f"FAIL  connect: 127.0.0.1:{port}: connection refused: nothing listens there; "
        "the port is wrong or the service is down"
    )


def test_silent_address_is_told(check: CheckWay, lines: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        waiting = [socket.socket() for _ in range(4)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(full.getsockname())
        assert not check(f"http://127.0.0.1:{full.getsockname()[1]}/")
        for sock in waiting:
            sock.close()
    assert "no answer: a firewall drops the packets" in lines[-1]


@pytest.mark.parametrize("host", ["issuer.invalid", "a" * 70 + ".example.com"])
def test_name_that_does_not_resolve_is_told(check: CheckWay, lines: list[str], host: str) -> None:
    assert not check(f"https://{host}/token")
    assert lines[0].startswith(f"FAIL  name lookup: {host}: ")
    assert len(lines) == 1


def test_certificate_is_shown_with_the_days_that_are_left(
    check: CheckWay, server: ScriptedUpstream, authority: Authority, lines: list[str]
) -> None:
    with TlsFront(server.url, authority.server_context(authority.issue())) as front:
        assert check(front.url)
    assert lines[-1].startswith(
        "ok    TLS: TLSv1.3; certificate of CN=127.0.0.1, signed by CN=Test Authority, good until "
    )
    assert lines[-1].endswith(", 59 days left")


def test_certificate_that_ends_soon_is_a_warning(
    check: CheckWay, server: ScriptedUpstream, authority: Authority, lines: list[str]
) -> None:
    with TlsFront(server.url, authority.server_context(authority.issue(days=(-9, 5)))) as front:
        assert check(front.url)
    assert lines[-1].startswith("warn  TLS: ")


@pytest.mark.parametrize(
    ("host", "days", "words"),
    [
        pytest.param("127.0.0.1", (-9, -2), "has expired", id="expired"),
        pytest.param("127.0.0.1", (2, 9), "not valid yet", id="not-yet-valid"),
        pytest.param("other.example.com", (-1, 60), "for another name than 127.0.0.1", id="wrong-name"),
    ],
)
def test_bad_certificate_is_told_and_shown(
    check: CheckWay,
    server: ScriptedUpstream,
    authority: Authority,
    lines: list[str],
    host: str,
    days: tuple[int, int],
    words: str,
) -> None:
    with TlsFront(server.url, authority.server_context(authority.issue(host, days=days))) as front:
        assert not check(front.url)
    assert lines[-1].startswith("FAIL  TLS: ")
    assert words in lines[-1]
    assert f"it is of CN={host}, signed by CN=Test Authority" in lines[-1]


def test_unknown_authority_is_told_with_its_name(
    check: CheckWay, server: ScriptedUpstream, tmp_path: Path, lines: list[str]
) -> None:
    other = Authority(tmp_path, "Somebody Else")
    with TlsFront(server.url, other.server_context(other.issue())) as front:
        assert not check(front.url)
    assert "set ca_bundle" in lines[-1]
    assert "signed by CN=Somebody Else" in lines[-1]


def test_server_without_tls_is_told(check: CheckWay, lines: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer_plainly() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.recv(65536)
                peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer_plainly)
        thread.start()
        assert not check(f"https://127.0.0.1:{listener.getsockname()[1]}/")
        thread.join(5)
    assert "does not speak TLS on this port" in lines[-1]


def test_refused_handshake_is_told(
    check: CheckWay, server: ScriptedUpstream, authority: Authority, lines: list[str]
) -> None:
    context = authority.server_context(authority.issue(), wants_client=True)
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # with 1.3 the client learns of it after the handshake
    with TlsFront(server.url, context) as front:
        assert not check(front.url)
    assert "set client_cert" in lines[-1]


@pytest.mark.parametrize("member", ["ca_bundle", "client_cert"])
def test_file_without_a_certificate_is_told(
    check: CheckWay, server: ScriptedUpstream, tmp_path: Path, lines: list[str], member: str
) -> None:
    (tmp_path / "file.pem").write_text("s3cret-mark")
    assert not check(f"https://127.0.0.1:{server.port}/", **{member: tmp_path / "file.pem"})
    assert lines[-1].startswith("FAIL  TLS: ca_bundle or client_cert cannot be used: ")


# Through an HTTP proxy


def test_proxy_looks_the_name_up_and_joins_us_to_it(
    check: CheckWay, server: ScriptedUpstream, lines: list[str]
) -> None:
    server.answer(ESTABLISHED)
    assert check("http://llm.invalid/v1", by=f"http://user:s3cret-mark@127.0.0.1:{server.port}")
    assert [line.partition(" in ")[0] for line in lines[1:3]] == [
        f"ok    connect: 127.0.0.1:{server.port}",
        "ok    tunnel: to llm.invalid:80",
    ]
    assert [request.head.split(b"\r\n")[0] for request in server.requests] == [b"CONNECT llm.invalid:80 HTTP/1.1"]


def test_certificate_of_the_upstream_is_shown_through_the_tunnel(
    check: CheckWay, server: ScriptedUpstream, authority: Authority, lines: list[str]
) -> None:
    context = authority.server_context(authority.issue())
    with TlsFront(server.url, context) as front, ForwardProxy() as forward:
        assert check(front.url, by=forward.url())
    assert lines[-1].startswith("ok    TLS: TLSv1.3; certificate of CN=127.0.0.1, signed by CN=Test Authority")


def test_refused_certificate_is_fetched_through_the_tunnel_too(
    check: CheckWay, server: ScriptedUpstream, tmp_path: Path, lines: list[str]
) -> None:
    inspector = Authority(tmp_path, "Proxy That Looks Inside")
    context = inspector.server_context(inspector.issue())
    with TlsFront(server.url, context) as front, ForwardProxy() as forward:
        assert not check(front.url, by=forward.url())
        assert forward.targets == [f"CONNECT 127.0.0.1:{front.port}"] * 2
    assert "signed by CN=Proxy That Looks Inside" in lines[-1]


def test_proxy_that_refuses_is_told_and_quoted_nowhere(
    check: CheckWay, server: ScriptedUpstream, lines: list[str]
) -> None:
    server.answer(b"HTTP/1.1 407 s3cret-mark\r\nProxy-Authenticate: s3cret-mark\r\n\r\ns3cret-mark")
    assert not check("https://[fd00::1]/", by=f"http://user:s3cret-mark@127.0.0.1:{server.port}")
    assert lines[-1].startswith("FAIL  tunnel: to [fd00::1]:443: the proxy answered 407: it wants a user")


def test_proxy_that_is_silent_is_told(check: CheckWay, server: ScriptedUpstream, lines: list[str]) -> None:
    assert not check("https://llm.invalid/", by=server.url, connect_s=0.1)
    assert lines[-1].startswith("FAIL  tunnel: to llm.invalid:443: it does not answer")
