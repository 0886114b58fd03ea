"""An upstream behind a forward proxy: what goes there, what the proxy sees of it, and how it may fail."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.authority import Authority
from tests.support.forward_proxy import ESTABLISHED, Act, ForwardProxy, dripping, endless, saying, silent
from tests.support.proxy_command import MARK, SECRETS, run_command
from tests.support.proxy_process import ProxyFarm, ProxyProcess, free_port
from tests.support.raw_http import RawCaller
from tests.support.sandbox_client import SandboxClient
from tests.support.tls_front import TlsFront

CHAT = "/v1/chat/completions"
EMBEDDINGS = "/v1/embeddings"
CALLERS_KEY = "callers-key-1"
PROMPT = "words of the prompt"
# `ab:` has a length that leaves the base64 of what follows as it is by itself, so SECRETS finds it.
CREDENTIALS = f"ab:{MARK}"


class Way:
    """The sandbox behind a forward proxy, over plain HTTP or TLS."""

    def __init__(
        self, scheme: str, sandbox: SandboxClient, front: TlsFront, authority: Authority, forward: ForwardProxy
    ):
        self.scheme = scheme
        self.origin = front.url if scheme == "https" else sandbox.url
        self._sandbox = sandbox
        self._tls = {"ca_bundle": str(authority.ca_bundle)} if scheme == "https" else {}
        self._http_proxy = forward.url(CREDENTIALS)

    def config(self, worker_class: str = "gevent", **upstream: Any) -> dict[str, Any]:
        return self._sandbox.config(
            server={"worker_class": worker_class},
            upstream={
                "base_url": f"{self.origin}/v1",
                "http_proxy": self._http_proxy,
                "embeddings": {"max_batch": 2},
                "keepalive_comment_s": 0.3,
                # first_byte_s is longer than ask() waits: whoever counts by it instead of connect_s is found out.
                "timeouts": {"connect_s": 1, "first_byte_s": 60, "idle_s": 60, "total_s": 60},
                **self._tls,
                **upstream,
            },
        )


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def _forward_of_module() -> Iterator[ForwardProxy]:
    with ForwardProxy() as forward:
        yield forward


@pytest.fixture
def forward(_forward_of_module: ForwardProxy) -> ForwardProxy:
    _forward_of_module.reset()
    return _forward_of_module


@pytest.fixture(scope="module")
def front(_sandbox_of_session: SandboxClient, authority: Authority) -> Iterator[TlsFront]:
    with TlsFront(_sandbox_of_session.url, authority.server_context(authority.issue())) as front:
        yield front


@pytest.fixture
def way(sandbox: SandboxClient, front: TlsFront, authority: Authority, forward: ForwardProxy) -> Way:
    return Way("https", sandbox, front, authority, forward)


@pytest.fixture
def plain_way(sandbox: SandboxClient, front: TlsFront, authority: Authority, forward: ForwardProxy) -> Way:
    return Way("http", sandbox, front, authority, forward)


@pytest.fixture(params=["http", "https"])
def either_way(request: pytest.FixtureRequest, way: Way, plain_way: Way) -> Way:
    return way if request.param == "https" else plain_way


def ask(proxy: ProxyProcess, path: str = CHAT, **members: Any) -> httpx.Response:
    body = {"messages": [{"role": "user", "content": PROMPT}]} if path == CHAT else {"input": [PROMPT, "b", "c"]}
    headers = {"Authorization": f"Bearer {CALLERS_KEY}", "Proxy-Authorization": f"Basic {CALLERS_KEY}"}
    body = {"model": "m", **body, **members}
    return httpx.post(proxy.url + path, json=body, headers=headers, trust_env=False, timeout=30)


def check_log(proxy: ProxyProcess) -> None:
    """No secret in it: neither the password, nor the field that is made of it, nor a token."""
    log = proxy.log()
    assert " request request_id=" in log
    assert not [secret for secret in (*SECRETS, CALLERS_KEY) if secret in log]


# Through the proxy


def test_chat_stream_and_split_embeddings_go_through_the_proxy(
    farm: ProxyFarm, sandbox: SandboxClient, forward: ForwardProxy, either_way: Way, worker_class: str
) -> None:
    forward.demand(CREDENTIALS)
    proxy = farm.proxy(either_way.config(worker_class))
    assert ask(proxy).json()["object"] == "chat.completion"
    assert ask(proxy, stream=True).text.endswith("data: [DONE]\n\n")
    authority = either_way.origin.partition("//")[2]
    assert forward.targets == [f"CONNECT {authority}"]  # kept, and used by both
    assert len(ask(proxy, EMBEDDINGS).json()["data"]) == 3
    asynchronous = f"CONNECT {authority}" if either_way.scheme == "https" else f"POST {either_way.origin}/v1/embeddings"
    assert forward.targets[1:] == [asynchronous] * 2
    entries = sandbox.log()
    assert [(entry["path"], entry["token"]) for entry in entries] == [
        *([(CHAT, "valid")] * 2),
        *([(EMBEDDINGS, "valid")] * 2),
    ]
    names = {name.lower() for entry in entries for name, _ in entry["headers"]}
    assert not {name for name in names if name.startswith("proxy-")}
    check_log(proxy)


def test_request_to_the_proxy_holds_no_more_than_it_needs(farm: ProxyFarm, forward: ForwardProxy, way: Way) -> None:
    ask(farm.proxy(way.config()))
    target = way.origin.partition("//")[2]
    encoded = base64.b64encode(CREDENTIALS.encode()).decode()
    assert forward.heads == [
        f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nProxy-Authorization: Basic {encoded}",
    ]


def test_over_tls_the_proxy_sees_no_credential_and_no_word(
    farm: ProxyFarm, forward: ForwardProxy, either_way: Way, worker_class: str
) -> None:
    proxy = farm.proxy(either_way.config(worker_class))
    answers = [ask(proxy), ask(proxy, stream=True), ask(proxy, EMBEDDINGS)]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    seen = forward.passed + "".join(forward.heads).encode()
    assert CALLERS_KEY.encode() not in seen
    # What TLS hides is there without it, which also shows that the recorder records.
    assert (b"sbx_" in seen, PROMPT.encode() in seen) == ((either_way.scheme == "http"),) * 2


def test_silent_stream_gets_comments_and_a_caller_that_goes_away_frees_the_upstream(
    farm: ProxyFarm, sandbox: SandboxClient, way: Way, worker_class: str
) -> None:
    proxy = farm.proxy(way.config(worker_class))
    sandbox.faults(upstream=[{"kind": "stall", "frames": 2}])
    with RawCaller(proxy.port) as caller:
        caller.post(CHAT, {"model": "m", "stream": True, "messages": [{"role": "user", "content": "Hello"}]})
        caller.read_until(b": keep-alive\n\n")
        assert sandbox.state()["open"] == 1
    sandbox.wait_until(lambda state: state["open"] == 0)
    assert sandbox.last()["end"] == "caller_gone"


def test_replaced_password_counts_at_the_next_connection(
    farm: ProxyFarm, forward: ForwardProxy, way: Way, tmp_path: Path
) -> None:
    secret = tmp_path / "http-proxy"
    secret.write_text(forward.url(CREDENTIALS) + "\n")
    proxy = farm.proxy(way.config(http_proxy={"file": str(secret)}))
    forward.demand(f"{CREDENTIALS}-2")
    assert ask(proxy).status_code == 502
    secret.write_text("half of a url")
    assert ask(proxy).status_code == 502
    secret.write_text(forward.url(f"{CREDENTIALS}-2"))
    assert ask(proxy).status_code == 200
    check_log(proxy)


@pytest.mark.parametrize("given", [True, False], ids=["with http_proxy", "without"])
def test_proxies_of_the_environment_do_not_count(
    sandbox: SandboxClient, forward: ForwardProxy, plain_way: Way, tmp_path: Path, given: bool
) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    environ = {name: dead for upper in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY") for name in (upper, upper.lower())}
    config = plain_way.config(http_proxy=forward.url() if given else None)
    proxy = ProxyProcess.start(config, tmp_path, {**environ, "NO_PROXY": "", "no_proxy": ""})
    try:
        assert [ask(proxy).status_code, ask(proxy, EMBEDDINGS).status_code] == [200, 200]
    finally:
        proxy.stop()
    assert len(forward.heads) == (3 if given else 0)


# A proxy that fails


@pytest.mark.parametrize(
    "act",
    [
        pytest.param(saying(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nNo"), id="403"),
        pytest.param(saying(b'HTTP/1.1 407 Who\r\nProxy-Authenticate: Basic realm="a"\r\n\r\n'), id="407"),
        pytest.param(saying(b"HTTP/1.0 502 Bad Gateway\r\n\r\n<html>"), id="502"),
        pytest.param(saying(b"SSH-2.0-x\r\n\r\n"), id="no HTTP"),
        pytest.param(saying(b""), id="closes"),
        pytest.param(endless, id="endless head"),
    ],
)
def test_proxy_that_opens_no_tunnel_is_502_until_it_does(
    farm: ProxyFarm, sandbox: SandboxClient, forward: ForwardProxy, way: Way, worker_class: str, act: Act
) -> None:
    proxy = farm.proxy(way.config(worker_class))
    forward.misbehave(act)
    for answer in (ask(proxy), ask(proxy, stream=True), ask(proxy, EMBEDDINGS)):
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_unavailable")
    assert sandbox.log() == []
    forward.misbehave(None)
    assert [ask(proxy).status_code, ask(proxy, EMBEDDINGS).status_code] == [200, 200]
    check_log(proxy)


def test_bytes_behind_the_proxys_answer_are_502(
    farm: ProxyFarm, forward: ForwardProxy, either_way: Way, worker_class: str
) -> None:
    forward.misbehave(saying(ESTABLISHED + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"))
    assert ask(farm.proxy(either_way.config(worker_class))).status_code == 502


@pytest.mark.parametrize("act", [silent, dripping], ids=["silent", "dripping"])
def test_proxy_that_does_not_answer_is_504(
    farm: ProxyFarm, forward: ForwardProxy, way: Way, worker_class: str, act: Act
) -> None:
    proxy = farm.proxy(way.config(worker_class))
    forward.misbehave(act)
    answer = ask(proxy)
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "upstream_timeout")
    assert len(forward.heads) == 1
    check_log(proxy)


def test_proxy_that_does_not_answer_split_embeddings_is_504(farm: ProxyFarm, forward: ForwardProxy, way: Way) -> None:
    proxy = farm.proxy(way.config(timeouts={"connect_s": 1, "first_byte_s": 1}))  # httpx2 counts by the second
    forward.misbehave(silent)
    assert ask(proxy, EMBEDDINGS).status_code == 504


def test_proxy_that_refuses_connections_is_502(farm: ProxyFarm, way: Way, worker_class: str) -> None:
    proxy = farm.proxy(way.config(worker_class, http_proxy=f"http://{CREDENTIALS}@127.0.0.1:{free_port()}"))
    assert [ask(proxy).status_code, ask(proxy, EMBEDDINGS).status_code] == [502, 502]
    check_log(proxy)


# The doctor


def doctor(config: dict[str, Any], folder: Path) -> list[str]:
    """The lines about the upstream, its heading first; no secret is in any."""
    ended = run_command(config, folder, "doctor")
    assert ended.stderr == ""
    [section] = [part for part in ended.stdout.split("\n\n") if part.startswith("upstream llm ")]
    return section.splitlines()


def test_doctor_goes_through_the_proxy_too(forward: ForwardProxy, either_way: Way, tmp_path: Path) -> None:
    forward.demand(CREDENTIALS)
    heading, lookup, connect, tunnel, *rest = doctor(either_way.config(), tmp_path)
    target = either_way.origin.partition("//")[2]
    assert heading == f"upstream llm ({either_way.origin}/v1 through {forward.url()})"
    assert lookup.startswith("ok    name lookup: 127.0.0.1 ")
    assert connect.startswith(f"ok    connect: 127.0.0.1:{forward.port} in ")
    assert tunnel.startswith(f"ok    tunnel: to {target} in ")
    assert not [line for line in rest if line.startswith(("FAIL", "warn"))]
    assert {line.partition(":")[0] for line in rest} >= {"ok    chat", "ok    stream", "ok    embedding"}
    assert set(forward.targets) == {f"CONNECT {target}"}


@pytest.mark.parametrize(
    ("act", "cause"),
    [
        pytest.param(saying(b"HTTP/1.1 407 Who\r\n\r\n"), "the proxy answered 407: it wants a user", id="407"),
        pytest.param(saying(b"HTTP/1.1 403 No\r\n\r\n"), "the proxy answered 403: it does not let", id="403"),
        pytest.param(saying(b"HTTP/1.1 502 Bad\r\n\r\n"), "the proxy answered 502: it has no way", id="502"),
        pytest.param(silent, "it does not answer", id="silent"),
    ],
)
def test_doctor_tells_why_there_is_no_tunnel(
    forward: ForwardProxy, way: Way, tmp_path: Path, act: Act, cause: str
) -> None:
    forward.misbehave(act)
    *_, tunnel, requests = doctor(way.config(), tmp_path)
    assert tunnel.startswith(f"FAIL  tunnel: to {way.origin.partition('//')[2]}: {cause}")
    assert requests == "skip  requests: there is no way to send one"


def test_doctor_shows_the_certificate_that_came_through_the_tunnel(
    forward: ForwardProxy, way: Way, tmp_path: Path
) -> None:
    *_, tls, _ = doctor(way.config(ca_bundle=None), tmp_path)
    assert tls.startswith("FAIL  TLS: the certificate is from an authority that this host does not know")
    assert "it is of CN=127.0.0.1, signed by CN=Test Authority" in tls
    assert forward.targets == [f"CONNECT {way.origin.partition('//')[2]}"] * 2
