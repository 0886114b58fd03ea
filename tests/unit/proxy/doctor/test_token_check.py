import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from config import Settings
from proxy.doctor import fetch
from proxy.doctor.foreign_text import ForeignText
from proxy.doctor.report import Report
from proxy.doctor.token_check import check_source
from proxy.token_sources import build_store
from proxy.tokens.record import Record
from proxy.tokens.stores.base import Store
from proxy.tokens.token import Token, boot_clock
from tests.support.certificates import self_signed
from tests.support.scripted_upstream import ScriptedUpstream, close

_GOOD = {"access_token": "opaque-1", "token_type": "Bearer", "expires_in": 300}


def plain(document: object, status: int = 200) -> bytes:
    body = json.dumps(document).encode()
    return b"HTTP/1.1 %d S\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
        status,
        len(body),
        body,
    )


class Check:
    """Runs the step for one source; `store` is the one that a running proxy of the same config would share."""

    def __init__(self, report: Report, foreign: ForeignText, settings_of: Callable[..., Settings]) -> None:
        self._report = report
        self._foreign = foreign
        self._settings_of = settings_of

    def settings(self, source: dict[str, Any], store: str = "file") -> Settings:
        return self._settings_of(token_sources={"corp": source}, token_store={"type": store})

    def store(self, source: dict[str, Any]) -> Store:
        settings = self.settings(source)
        return build_store(settings.token_sources["corp"], settings.token_store)

    def hold(self, source: dict[str, Any], value: str = "held-1") -> Record:
        store = self.store(source)
        record = Record(token=Token(value, fetched_at=boot_clock(), lifetime_s=300.0, generation=7), generation=7)
        with store.try_lock() as won:
            assert won
            store.save(record)
        return record

    def __call__(self, source: dict[str, Any], store: str = "file") -> Token | None:
        settings = self.settings(source, store)
        return check_source(self._report, "corp", settings.token_sources["corp"], settings.token_store, self._foreign)


@pytest.fixture
def check(report: Report, foreign: ForeignText, settings_of: Callable[..., Settings]) -> Check:
    return Check(report, foreign, settings_of)


@pytest.fixture
def http(server: ScriptedUpstream) -> dict[str, Any]:
    """A source that asks the server, with secrets wherever one can be."""
    return {
        "type": "http_json",
        "url": f"{server.url}/token?key=s3cret-mark",
        "headers": {"X-Key": "s3cret-mark-header"},
        "query": {"q": "s3cret-mark-query"},
        "json": {"appSecret": "s3cret-mark-json"},
    }


def steps(lines: list[str]) -> list[str]:
    return [line.partition(":")[0] for line in lines[1:]]


def test_good_source_is_told_step_by_step_and_its_token_published(
    check: Check, http: dict[str, Any], server: ScriptedUpstream, lines: list[str]
) -> None:
    server.answer(plain(_GOOD))
    token = check(http)
    assert lines[0] == f"token source corp (http_json, {server.url}/token)"
    assert [step.split()[0] for step in steps(lines)] == ["ok", "ok", "skip", "ok", "ok", "ok", "skip", "ok", "ok"]
    assert [step.split(maxsplit=1)[1] for step in steps(lines)] == [
        *("name lookup", "connect", "TLS", "request", "reply", "token", "clock", "lifetime", "store")
    ]
    assert token is not None
    held = check.store(http).load().token
    assert held is not None
    assert (token.value, held.value) == ("opaque-1", "opaque-1")
    assert token.fingerprint in lines[-1]
    assert "opaque-1" not in "".join(lines)


@pytest.mark.parametrize("type_", ["client_credentials", "token_exchange"])
def test_sources_of_oauth_are_looked_into_as_well(
    check: Check, server: ScriptedUpstream, lines: list[str], type_: str
) -> None:
    server.answer(plain({"data": {"token": "opaque-1"}}))
    source = {
        "type": type_,
        "token_url": f"{server.url}/oauth/token",
        "client_id": "app",
        "client_secret": "s3cret-mark",
    }
    if type_ == "token_exchange":
        source["subject_token"] = "s3cret-mark"
    assert check(source) is None
    assert lines[0] == f"token source corp ({type_}, {server.url}/oauth/token)"
    assert "ok    reply: /data object, /data/token string" in lines
    assert "a string is at /data/token" in next(line for line in lines if line.startswith("FAIL  token"))


def test_refused_source_goes_on_with_the_token_that_the_store_holds(
    check: Check, http: dict[str, Any], server: ScriptedUpstream, lines: list[str]
) -> None:
    before = check.hold(http)
    server.answer(plain({"error": "invalid_client"}, 401))
    token = check(http)
    assert token is not None
    assert token.value == "held-1"
    assert "FAIL  request: 401" in "\n".join(lines)
    assert lines[-1].startswith(f"ok    store: it holds token {token.fingerprint}, usable for 29")
    after = check.store(http).load()
    assert (after.failures, after.generation) == (0, before.generation)


def test_refused_source_without_a_held_token_has_none(
    check: Check, http: dict[str, Any], server: ScriptedUpstream, lines: list[str]
) -> None:
    server.answer(plain({}, 500))
    assert check(http) is None
    assert lines[-1] == "skip  store: it holds no usable token to try the upstreams with"


def test_without_a_way_to_the_issuer_nothing_is_asked(check: Check, lines: list[str]) -> None:
    assert check({"type": "http_json", "url": "http://127.0.0.1:1/token"}) is None
    assert steps(lines) == ["ok    name lookup", "FAIL  connect", "skip  request", "skip  store"]


def test_answer_that_breaks_off_is_told(
    check: Check, http: dict[str, Any], server: ScriptedUpstream, lines: list[str]
) -> None:
    server.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", close)
    assert check(http) is None
    assert "FAIL  request: token endpoint: RemoteProtocolError" in lines[4]


def test_token_that_has_run_out_on_the_way_is_told(
    check: Check, http: dict[str, Any], server: ScriptedUpstream, lines: list[str]
) -> None:
    server.answer(plain({**_GOOD, "expires_in": 1e-6}))
    assert check(http) is None
    assert "FAIL  lifetime: the token had run out when it arrived" in lines


def test_in_a_memory_store_the_token_is_for_this_run(
    check: Check, http: dict[str, Any], server: ScriptedUpstream, lines: list[str]
) -> None:
    server.answer(plain(_GOOD))
    assert check(http, store="memory") is not None
    assert lines[-1].startswith("skip  store: each worker keeps a token of its own: ")


@pytest.fixture
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "LOCK_TRIES", 1)


@pytest.mark.usefixtures("_no_pause")
def test_lock_that_is_not_to_be_had_leaves_the_token_unpublished(
    check: Check, http: dict[str, Any], server: ScriptedUpstream, lines: list[str]
) -> None:
    server.answer(plain(_GOOD))
    store = check.store(http)
    with store.try_lock() as won:
        assert won
        token = check(http)
    assert token is not None
    assert token.value == "opaque-1"
    assert lines[-1].startswith("warn  store: another process keeps its lock: ")
    assert check.store(http).load() == Record()


@pytest.mark.usefixtures("_no_pause")
def test_issuer_with_one_active_token_is_not_asked_without_the_lock(
    check: Check, http: dict[str, Any], server: ScriptedUpstream, lines: list[str]
) -> None:
    source = {**http, "issuer": "single_active"}
    check.hold(source)
    store = check.store(source)
    with store.try_lock() as won:
        assert won
        token = check(source)
    assert token is not None
    assert token.value == "held-1"
    assert steps(lines)[3:] == ["FAIL  store", "ok    store"]
    assert server.requests == []


def test_issuer_with_one_active_token_is_not_asked_where_the_store_cannot_be_shared(
    check: Check, http: dict[str, Any], server: ScriptedUpstream, lines: list[str], tmp_path: Path
) -> None:
    (tmp_path / "llm-proxy").write_text("in the way of the folder")
    assert check({**http, "issuer": "single_active"}) is None
    assert steps(lines)[3:] == ["FAIL  store", "skip  store"]
    assert server.requests == []


def test_static_token_is_fetched_and_does_not_expire(check: Check, lines: list[str]) -> None:
    token = check({"type": "static", "token": "s3cret-mark-1"})
    assert token is not None
    assert lines[0] == "token source corp (static)"
    assert steps(lines) == ["ok    fetch", "ok    lifetime", "skip  store"]


def test_command_is_run_and_its_token_shared(check: Check, lines: list[str]) -> None:
    source = {"type": "command", "argv": ["/bin/echo", "opaque-1"]}
    assert check(source) is not None
    assert steps(lines) == ["ok    fetch", "ok    lifetime", "ok    store"]
    held = check.store(source).load().token
    assert held is not None
    assert held.value == "opaque-1"


def test_command_that_fails_is_told(check: Check, lines: list[str]) -> None:
    assert check({"type": "command", "argv": ["/bin/false"]}) is None
    assert steps(lines) == ["FAIL  fetch", "skip  store"]


def test_token_that_was_fetched_is_a_secret_from_then_on(
    check: Check, foreign: ForeignText, http: dict[str, Any], server: ScriptedUpstream
) -> None:
    server.answer(plain(_GOOD))
    check(http)
    assert foreign.identifier("opaque-1") is None


@pytest.mark.parametrize("member", ["ca_bundle", "client_cert"])
def test_file_that_holds_no_certificate_any_more_is_told(
    check: Check,
    http: dict[str, Any],
    report: Report,
    foreign: ForeignText,
    tmp_path: Path,
    lines: list[str],
    member: str,
) -> None:
    file = self_signed(tmp_path / "file.pem", "client")
    settings = check.settings({**http, member: "file.pem"})
    file.write_text("s3cret-mark")
    assert check_source(report, "corp", settings.token_sources["corp"], settings.token_store, foreign) is None
    assert "FAIL  request: ca_bundle or client_cert cannot be read" in "\n".join(lines)
