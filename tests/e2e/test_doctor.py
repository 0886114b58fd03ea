"""`python -m proxy doctor` and `token` as processes, against a sandbox that is well and one that has each fault."""

import json
import re
import socket
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from time import time
from typing import Any

import httpx
import pytest

from tests.support.authority import Authority
from tests.support.proxy_command import MARK, run_command
from tests.support.proxy_process import ProxyProcess
from tests.support.redis_server import RedisServer
from tests.support.sandbox_client import SandboxClient
from tests.support.tls_front import TlsFront

BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
GOOD = {"access_token": "opaque-1", "token_type": "Bearer", "expires_in": 300}


class Doctor:
    """Runs the command, and takes its lines apart."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def run(self, config: dict[str, Any], *options: str) -> int:
        ended = run_command(config, self._folder, "doctor", *options)
        assert ended.stderr == ""
        self.lines = ended.stdout.splitlines()
        return ended.returncode

    def of(self, state: str) -> list[str]:
        return [line[6:] for line in self.lines if line[:6] == f"{state:<6}"]

    def failing_steps(self) -> list[str]:
        return [line.partition(":")[0] for line in self.of("FAIL")]

    def by_section(self) -> dict[str, list[str]]:
        """The lines under each heading, by the name of the source or upstream."""
        sections = "\n".join(self.lines).split("\n\n")[:-1]
        return {lines[0].partition(" (")[0].split()[-1]: lines[1:] for lines in map(str.splitlines, sections)}


@pytest.fixture
def sandbox(own_sandbox: SandboxClient) -> SandboxClient:
    """One for each test: the proxies of others renew their tokens when they are due, and here fetches are counted."""
    return own_sandbox


@pytest.fixture
def doctor(tmp_path: Path) -> Doctor:
    return Doctor(tmp_path)


def token_command(config: dict[str, Any], folder: Path) -> tuple[int, str]:
    ended = run_command(config, folder, "token")
    assert ended.stderr == ""
    return ended.returncode, ended.stdout


# All is well


def test_all_is_well_and_the_token_is_left_in_the_shared_store(
    doctor: Doctor, sandbox: SandboxClient, tmp_path: Path
) -> None:
    config = sandbox.config()
    assert token_command(config, tmp_path)[0] == 1
    assert doctor.run(config) == 0
    assert doctor.lines[-1] == "0 FAIL, 0 warn, 14 ok, 2 skip"
    [published] = re.findall(r"token ([0-9a-f]{8}) is published", "\n".join(doctor.lines))
    status, output = token_command(config, tmp_path)
    assert status == 0
    assert re.fullmatch(
        rf"corp \(http_json\): fresh, token {published}, generation 1, age [0-9.]+ s, expires in 2\d\d s, "
        r"renewal due in \d+ s\n",
        output,
    )
    assert sandbox.state()["fetches"] == 1
    assert {entry["token"] for entry in sandbox.log()} == {"valid"}


def test_oauth_source_and_a_source_that_nobody_shares(doctor: Doctor, sandbox: SandboxClient, tmp_path: Path) -> None:
    oauth = {"type": "client_credentials", "token_url": f"{sandbox.url}/oauth/token", "client_id": "sandbox-app"}
    sources = {"corp": {**oauth, "client_secret": "sandbox-secret"}, "vendor": {"type": "static", "token": MARK}}
    config = sandbox.config(token_sources=sources)
    assert doctor.run(config) == 0
    status, output = token_command(config, tmp_path)
    assert status == 0
    assert "corp (client_credentials): fresh, " in output
    assert "vendor (static): kept in each worker" in output


# The issuer


# One run meets them all, each source the next; each has `times: 1` then.
ISSUER_FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "failure": ({"kind": "status", "status": 500, "body": MARK}, "request: 500 in .*: the issuer, or a gateway"),
    "redirect": (
        {"kind": "redirect", "location": f"https://login.example.com/?next={MARK}"},
        "request: 302 in .*: it redirects, which is not followed",
    ),
    "html": (
        {"kind": "reply", "content_type": "text/html", "body": f"<html>{MARK}"},
        "reply: it is no JSON: it is an HTML page",
    ),
    "hang": ({"kind": "hang"}, "request: .*no answer within the deadline"),
    "reset": ({"kind": "reset"}, "request: .*Connection reset by peer"),
    "no-token": ({"kind": "reply", "body": json.dumps({"id": MARK})}, "token: no token at /access_token"),
    "elsewhere": (
        {"kind": "reply", "body": json.dumps({"data": GOOD})},
        "token: .*a string is at /data/access_token: token_pointer",
    ),
    "no-life": (
        {"kind": "reply", "body": json.dumps({**GOOD, "expires_in": 0})},
        "token: the lifetime by /expires_in is not above 0",
    ),
    "line-break": (
        {"kind": "reply", "body": json.dumps({**GOOD, "access_token": f"{MARK}\n"})},
        "token: .*characters that RFC 6750 does not allow",
    ),
}


@pytest.fixture(scope="module")
def told_of_issuers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    doctor = Doctor(tmp_path_factory.mktemp("doctor"))
    with SandboxClient.start() as sandbox:
        sandbox.faults(issuer=[{**fault, "times": 1} for fault, _ in ISSUER_FAULTS.values()])
        config = sandbox.config(upstream={"token_source": next(iter(ISSUER_FAULTS))})
        [source] = config["token_sources"].values()
        assert doctor.run({**config, "token_sources": dict.fromkeys(ISSUER_FAULTS, source)}) == 1
        assert sandbox.state()["requests"] == 0
    return doctor.by_section()


@pytest.mark.parametrize("name", ISSUER_FAULTS)
def test_fault_of_the_issuer_is_named(told_of_issuers: dict[str, list[str]], name: str) -> None:
    [line] = [line for line in told_of_issuers[name] if line.startswith("FAIL")]
    assert re.match(f"FAIL  {ISSUER_FAULTS[name][1]}", line)
    assert told_of_issuers[name][-1].startswith("skip  store: it holds no usable token")


def test_without_a_token_nothing_is_sent_upstream(told_of_issuers: dict[str, list[str]]) -> None:
    assert told_of_issuers["llm"][-1] == "skip  requests: there is no token from failure to send"


def test_reply_that_drips_is_named(doctor: Doctor, sandbox: SandboxClient) -> None:
    sandbox.faults(issuer=[{"kind": "drip"}])
    assert doctor.run(sandbox.config()) == 1
    [line] = doctor.of("FAIL")
    assert line.startswith("request: token endpoint: no answer within the deadline (50")


def test_wrong_secret_is_named_and_shown_nowhere(doctor: Doctor, sandbox: SandboxClient) -> None:
    config = sandbox.config(upstream={"headers": {"X-App-Id": f"{MARK}-header"}})
    config["token_sources"]["corp"] |= {
        "url": f"{sandbox.url}/token?key={MARK}-url",
        "headers": {"X-Key": f"{MARK}-header"},
        "query": {"q": f"{MARK}-query"},
        "json": {"appId": "sandbox-app", "appSecret": f"{MARK}-secret"},
    }
    assert doctor.run(config) == 1
    [line] = doctor.of("FAIL")
    assert "request: 401 in " in line
    assert "invalid_client, the issuer does not know the client, or the secret" in line
    assert doctor.lines[0] == f"token source corp (http_json, {sandbox.url}/token)"


def test_upstreams_are_tried_with_the_held_token_after_a_failed_fetch(doctor: Doctor, sandbox: SandboxClient) -> None:
    assert doctor.run(sandbox.config()) == 0
    sandbox.faults(issuer=[{"kind": "status", "status": 503}])
    assert doctor.run(sandbox.config()) == 1
    assert doctor.failing_steps() == ["request"]
    assert {"store", "chat", "stream", "embedding"} <= {line.partition(":")[0] for line in doctor.of("ok")}


def test_clock_of_the_issuer_that_differs_is_a_warning_where_the_expiry_is_an_instant(
    doctor: Doctor, sandbox: SandboxClient
) -> None:
    theirs = time() + 3600
    reply = json.dumps({"access_token": "opaque-1", "expires_at": theirs + 300})
    date = formatdate(theirs, usegmt=True)
    sandbox.faults(issuer=[{"kind": "reply", "body": reply, "headers": {"Date": date}}])
    config = sandbox.config()
    config["token_sources"]["corp"]["expires_at_pointer"] = "/expires_at"
    doctor.run(config)
    [line] = doctor.of("warn")
    assert line.startswith("clock: the issuer's is 60 min ahead of this host's: one of them is wrong")
    assert any(re.match(r"lifetime: 30[01] s, .* minus the reply's Date", line) for line in doctor.of("ok"))


def test_name_that_does_not_resolve_and_a_port_that_refuses_are_named(doctor: Doctor, sandbox: SandboxClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = int(closed.getsockname()[1])
    config = sandbox.config(upstream={"base_url": f"http://127.0.0.1:{port}/v1"})
    config["token_sources"]["corp"]["url"] = f"https://issuer.invalid/token?key={MARK}"
    assert doctor.run(config) == 1
    name, connect = doctor.of("FAIL")
    assert name.startswith("name lookup: issuer.invalid: ")
    assert connect.startswith(f"connect: 127.0.0.1:{port}: connection refused: nothing listens there")


# TLS


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def behind_tls(sandbox: SandboxClient, authority: Authority) -> Iterator[Callable[..., dict[str, Any]]]:
    """The config for a sandbox behind TLS with this certificate; the authority is trusted unless told otherwise."""
    fronts: list[TlsFront] = []

    def behind_tls(
        host: str = "127.0.0.1",
        days: tuple[int, int] = (-1, 60),
        is_trusted: bool = True,
        wants_client: bool = False,
        **members: str,
    ) -> dict[str, Any]:
        context = authority.server_context(authority.issue(host, days=days), wants_client=wants_client)
        fronts.append(TlsFront(sandbox.url, context))
        tls = {**({"ca_bundle": str(authority.ca_bundle)} if is_trusted else {}), **members}
        config = sandbox.config(upstream={"base_url": f"{fronts[0].url}/v1", **tls})
        config["token_sources"]["corp"] |= {"url": f"{fronts[0].url}/token", **tls}
        return config

    yield behind_tls
    for front in fronts:
        front.__exit__(None, None, None)


def test_good_certificate_is_shown(doctor: Doctor, behind_tls: Callable[..., dict[str, Any]]) -> None:
    assert doctor.run(behind_tls()) == 0
    shown = [
        line for line in doctor.of("ok") if line.startswith("TLS: TLSv1.3; certificate of CN=127.0.0.1, signed by")
    ]
    assert len(shown) == 2  # of the issuer and of the upstream


@pytest.mark.parametrize(
    ("certificate", "cause"),
    [
        pytest.param({"is_trusted": False}, "an authority that this host does not know", id="unknown-authority"),
        pytest.param({"host": "other.example.com"}, "for another name than 127.0.0.1", id="wrong-name"),
        pytest.param({"days": (-9, -2)}, "the certificate has expired", id="expired"),
    ],
)
def test_bad_certificate_is_named(
    doctor: Doctor, behind_tls: Callable[..., dict[str, Any]], certificate: dict[str, Any], cause: str
) -> None:
    assert doctor.run(behind_tls(**certificate)) == 1
    assert doctor.failing_steps() == ["TLS", "TLS"]
    assert all(cause in line and "signed by CN=Test Authority" in line for line in doctor.of("FAIL"))


def test_client_certificate_that_lacks_is_named_and_one_that_is_known_helps(
    doctor: Doctor, behind_tls: Callable[..., dict[str, Any]], authority: Authority
) -> None:
    config = behind_tls(wants_client=True)
    assert doctor.run(config) == 1
    [line] = doctor.of("FAIL")
    assert line.startswith("request: ")
    assert "for want of a client_cert" in line
    for section in (config["token_sources"]["corp"], config["upstreams"][0]):
        section["client_cert"] = str(authority.issue("client.example.com"))
    assert doctor.run(config) == 0


def test_plain_http_behind_https_is_named(doctor: Doctor, sandbox: SandboxClient) -> None:
    url = sandbox.url.replace("http:", "https:")
    config = sandbox.config(upstream={"base_url": f"{url}/v1"})
    config["token_sources"]["corp"]["url"] = f"{url}/token"
    assert doctor.run(config) == 1
    assert doctor.failing_steps() == ["TLS", "TLS"]
    assert all("does not speak TLS on this port" in line for line in doctor.of("FAIL"))


# The upstream


# One run meets them all: each upstream has a model of its own, by which the sandbox knows the fault.
UPSTREAM_FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "refused": (
        {"kind": "refuse_token"},
        "chat: 401 in .* refuses the token, sent as Authorization: Bearer [*]{4}: invalid_token: .*"
        "it says code invalid_token, type authentication_error",
    ),
    "unknown": (
        {"kind": "status", "status": 404, "body": json.dumps({"error": {"code": "model_not_found", "message": MARK}})},
        "chat: 404 in .*: unknown model or path: see the names in models.*it says code model_not_found",
    ),
    "cut": ({"kind": "cut", "half": True}, "stream: 200 in .*, broken off after 2 frames"),
    "stalled": ({"kind": "stall"}, "stream: 200 in .*: the answer stalled"),
    "no-end": ({"kind": "no_finish"}, "stream: 200 in .*no finish_reason and no .DONE."),
    "html": (
        {"kind": "reply", "content_type": "text/html", "body": f"<html>{MARK}"},
        "chat: 200 in .*, but no chat completion: text/html, 17 bytes",
    ),
    "reset": ({"kind": "reset"}, "chat: .*ConnectionResetError: .*broke off"),
    "hang": ({"kind": "hang"}, "chat: no answer in time"),
}


@pytest.fixture(scope="module")
def told_of_upstreams(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    doctor = Doctor(tmp_path_factory.mktemp("doctor"))
    with SandboxClient.start() as sandbox:
        sandbox.faults(upstream=[{**fault, "model": name} for name, (fault, _) in UPSTREAM_FAULTS.items()])
        config = sandbox.config(upstream={"timeouts": {"first_byte_s": 1, "idle_s": 1}})
        [upstream] = config["upstreams"]
        upstreams = [{**upstream, "name": name, "models": {name: name}} for name in UPSTREAM_FAULTS]
        assert doctor.run({**config, "upstreams": upstreams}) == 1
        assert sandbox.state()["fetches"] == 1
    return doctor.by_section()


@pytest.mark.parametrize("name", UPSTREAM_FAULTS)
def test_fault_of_the_upstream_is_named(told_of_upstreams: dict[str, list[str]], name: str) -> None:
    [line] = [line for line in told_of_upstreams[name] if line.startswith("FAIL")]
    assert re.match(f"FAIL  {UPSTREAM_FAULTS[name][1]}", line)


def test_what_the_proxy_copes_with_is_a_warning(doctor: Doctor, sandbox: SandboxClient) -> None:
    sandbox.faults(upstream=[{"kind": "no_done"}, {"kind": "status", "status": 404, "path": "/embeddings"}])
    assert doctor.run(sandbox.config()) == 0
    stream, embedding = doctor.of("warn")
    assert "finished, but no [DONE] at the end: the proxy adds it" in stream
    assert embedding.startswith("embedding: 404 in ")


def test_wrong_prefix_is_named_by_the_header_that_was_sent(doctor: Doctor, sandbox: SandboxClient) -> None:
    upstream = {"token_prefix": "Token", "models": {"gpt": "sandbox-chat"}}
    assert doctor.run(sandbox.config(upstream=upstream)) == 1
    assert any("sent as Authorization: Token ****: " in line for line in doctor.of("FAIL"))


def test_options_choose_the_models(doctor: Doctor, sandbox: SandboxClient) -> None:
    config = sandbox.config(upstream={"models": {"mine": "m-1", "*": "*"}})
    assert doctor.run(config, "--model", "mine", "--embedding-model", "e-1") == 0
    assert [entry["model"] for entry in sandbox.log()] == [None, "m-1", "m-1", "e-1"]


# Beside a running proxy


def test_running_proxy_goes_on_with_the_doctors_token_where_the_issuer_ends_the_old_one(
    doctor: Doctor, tmp_path: Path
) -> None:
    with SandboxClient.start(single_active=True) as sandbox:
        config = sandbox.config()
        config["token_sources"]["corp"]["issuer"] = "single_active"
        proxy = ProxyProcess.start(config, tmp_path)
        try:
            assert httpx.post(f"{proxy.api}/chat/completions", json=BODY, trust_env=False).status_code == 200
            assert doctor.run(config) == 0
            assert httpx.post(f"{proxy.api}/chat/completions", json=BODY, trust_env=False).status_code == 200
            status, output = token_command(config, tmp_path)
        finally:
            proxy.stop()
        assert sandbox.state()["fetches"] == 2
        assert status == 0
        assert "generation 2" in output


def test_token_tells_the_back_off_of_a_running_proxy(sandbox: SandboxClient, tmp_path: Path) -> None:
    sandbox.faults(issuer=[{"kind": "status", "status": 401}])
    config = sandbox.config()
    proxy = ProxyProcess.start(config, tmp_path)
    try:
        assert httpx.post(f"{proxy.api}/chat/completions", json=BODY, trust_env=False).status_code == 503
        status, output = token_command(config, tmp_path)
    finally:
        proxy.stop()
    assert status == 1
    assert "corp (http_json): the store holds none" in output
    told = re.search(r"failed fetches: 1, the credentials are refused; next try in ([0-9]+) s", output)
    assert told  # 30 s after the failure, of which some may have gone by
    assert 1 <= int(told[1]) <= 30
    assert sandbox.state()["fetches"] == 1


def test_token_that_hosts_share_in_redis_is_told_on_each_and_is_not_endangered_while_redis_is_away(
    doctor: Doctor, sandbox: SandboxClient, tmp_path: Path
) -> None:
    other_host = tmp_path / "other-host"
    other_host.mkdir()
    with RedisServer(tmp_path) as redis:
        config = sandbox.config(token_store={"type": "redis", "url": redis.url})
        config["token_sources"]["corp"]["issuer"] = "single_active"
        assert doctor.run(config) == 0
        status, output = token_command(config, other_host)
        assert status == 0
        assert "generation 1" in output
        redis.stop()
        assert doctor.run(config) == 1
    assert doctor.failing_steps() == ["store"]
    assert doctor.of("warn") == ["log: token store: Redis is away (ConnectionError); this host goes on by itself"]
    assert sandbox.state()["fetches"] == 1


@pytest.mark.parametrize("command", ["doctor", "token"])
def test_faults_of_the_config_are_told_one_a_line(tmp_path: Path, command: str) -> None:
    ended = run_command({"upstreams": [{"name": "llm", "base_url": MARK}]}, tmp_path, command)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("upstreams[0].base_url: ")
