"""The whole run: what is tried with what, and how it is summed up."""

from collections.abc import Callable
from typing import Any

import pytest

from config import Settings
from proxy.doctor import Report, examine
from tests.support.scripted_upstream import ScriptedUpstream

_REFUSED = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture
def upstream_of(server: ScriptedUpstream) -> Callable[..., dict[str, Any]]:
    """A section whose upstream makes two requests, as its one model is known."""

    def upstream_of(name: str, source: str | None) -> dict[str, Any]:
        server.answer(_REFUSED)
        server.answer(_REFUSED)
        return {"name": name, "base_url": f"{server.url}/{name}", "token_source": source, "models": {"gpt": "m"}}

    return upstream_of


def test_each_upstream_gets_the_token_of_its_own_source(
    report: Report, settings_of: Callable[..., Settings], upstream_of: Callable[..., Any], server: ScriptedUpstream
) -> None:
    sources = {name: {"type": "static", "token": f"s3cret-mark-{name}"} for name in ("a", "b", "unused")}
    upstreams = [upstream_of("first", "b"), upstream_of("second", None), upstream_of("third", "a")]
    examine(settings_of(token_sources=sources, upstreams=upstreams), report)
    sent = {
        request.head.split(b" ")[1].split(b"/")[1].decode(): [
            line.decode() for line in request.head.split(b"\r\n") if line.startswith(b"Authorization")
        ]
        for request in server.requests
    }
    assert sent == {
        "first": ["Authorization: Bearer s3cret-mark-b"],
        "second": [],
        "third": ["Authorization: Bearer s3cret-mark-a"],
    }


def test_every_source_is_tried_before_the_upstreams_and_the_run_is_summed_up(
    report: Report, settings_of: Callable[..., Settings], upstream_of: Callable[..., Any], lines: list[str]
) -> None:
    sources = {name: {"type": "static", "token": "s3cret-mark"} for name in ("a", "unused")}
    examine(settings_of(token_sources=sources, upstreams=[upstream_of("llm", "a")]), report)
    headings = [line for before, line in zip(["", *lines], lines, strict=False) if not before]
    assert [heading.partition(" (")[0] for heading in headings if heading] == [
        *("token source a", "token source unused", "upstream llm", "2 FAIL, 0 warn, 6 ok, 5 skip")
    ]
    assert not report.is_good


def test_options_reach_the_upstreams(
    report: Report, settings_of: Callable[..., Settings], server: ScriptedUpstream
) -> None:
    for _ in range(3):
        server.answer(_REFUSED)
    upstream = {"name": "llm", "base_url": server.url}
    examine(settings_of(upstreams=[upstream]), report, model="chat-9", embedding_model="bge-9")
    assert [request.body[:19] for request in server.requests] == [b"", b'{"model": "chat-9",', b'{"model": "bge-9", ']


def test_sandbox_of_the_config_is_named(report: Report, settings_of: Callable[..., Settings], lines: list[str]) -> None:
    examine(settings_of(sandbox={"bind": "127.0.0.1:5003"}), report)
    assert lines[0] == "a sandbox on 127.0.0.1:5003 is part of this config: it runs while the proxy does"
