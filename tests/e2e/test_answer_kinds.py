"""What counts as an answer of a route: a stream or a completion where a stream was asked for, JSON, sound; no page.

All of it comes with 200. What passes where a stream is asked of a route that has none is in test_odd_answers.
"""

from typing import Any

import pytest

from tests.support.always_true import always_true
from tests.support.proxy_process import ProxyProcess
from tests.support.sandbox_client import SandboxClient

COMPLETIONS = ("/v1/chat/completions", "/v1/completions", "/v1/responses")
OTHERS = ("/v1/embeddings", "/v1/rerank", "/v1/moderations", "/v1/images/generations")
# More than is held before the head goes out.
LARGE = " " * 9 * 1024 * 1024
PAGE = '<!doctype html><html>Log in. "choices" "output"</html>'


def reply(body: str, content_type: str = "application/json") -> dict[str, Any]:
    return {"kind": "reply", "body": body, "content_type": content_type}


def answers(
    proxy: ProxyProcess, sandbox: SandboxClient, fault: dict[str, Any], *paths: str, **members: Any
) -> set[Any]:
    """The statuses and the codes or texts that came back."""
    sandbox.faults(upstream=[fault])
    found: set[Any] = set()
    with always_true(proxy, sandbox) as watch:
        for path in paths:
            answer = watch.ask(path, json={"model": "m", **members})
            is_ours = answer.status_code >= 500
            found.add((answer.status_code, answer.json()["error"]["code"] if is_ours else answer.text))
    return found


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(reply(PAGE, "text/html"), id="a page"),
        pytest.param(reply(PAGE), id="a page that is called JSON"),
        pytest.param(reply(f"\r\n {PAGE}"), id="a page behind blanks"),
        pytest.param(reply(""), id="nothing"),
        pytest.param(reply("", "text/plain"), id="nothing that is called text"),
        pytest.param(reply("Welcome", "text/plain"), id="a word"),
        pytest.param(reply(PAGE + LARGE, "text/html"), id="a large page"),
        pytest.param(reply(LARGE), id="large and nothing but blanks"),
    ],
)
def test_what_is_no_json_is_502(proxy: ProxyProcess, sandbox: SandboxClient, fault: dict[str, Any]) -> None:
    unavailable = {(502, "upstream_unavailable")}
    assert answers(proxy, sandbox, fault, *COMPLETIONS, *OTHERS) == unavailable
    assert answers(proxy, sandbox, fault, *COMPLETIONS, *OTHERS, stream=True) == unavailable


@pytest.mark.parametrize("body", ['{"error": {"message": "no"}}', '{"object": "list", "data": []}', "[]", "{}"])
def test_json_that_is_no_completion_is_502_where_a_stream_was_asked_for_and_passes_elsewhere(
    proxy: ProxyProcess, sandbox: SandboxClient, body: str
) -> None:
    assert answers(proxy, sandbox, reply(body), *COMPLETIONS, stream=True) == {(502, "upstream_unavailable")}
    assert answers(proxy, sandbox, reply(body), *COMPLETIONS) == {(200, body)}
    assert answers(proxy, sandbox, reply(body), *OTHERS, stream=True) == {(200, body)}


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(reply('{"choices": []}'), id="short"),
        pytest.param(reply('\n{\n  "id": "x",\n  "choices" : [\n  ]\n}\n'), id="on several lines"),
        pytest.param(reply('{"choices": []}', "text/plain"), id="called text"),
        pytest.param(reply('{"choices": []}', "text/html"), id="called a page"),
        pytest.param(reply('\ufeff{"choices": []}'), id="behind a BOM"),
        pytest.param(reply('{"object": "response", "output": []}'), id="a response"),
    ],
)
def test_completion_passes_as_it_is_where_a_stream_was_asked_for(
    proxy: ProxyProcess, sandbox: SandboxClient, fault: dict[str, Any]
) -> None:
    assert answers(proxy, sandbox, fault, *COMPLETIONS, stream=True) == {(200, fault["body"])}


def test_large_json_that_is_no_completion_is_502_where_a_stream_was_asked_for_and_passes_elsewhere(
    proxy: ProxyProcess, sandbox: SandboxClient
) -> None:
    fault = reply('{"error": {}' + LARGE + "}")
    assert answers(proxy, sandbox, fault, COMPLETIONS[0], stream=True) == {(502, "upstream_unavailable")}
    passed = answers(proxy, sandbox, fault, COMPLETIONS[0]) | answers(proxy, sandbox, fault, OTHERS[0], stream=True)
    assert [(status, text == fault["body"]) for status, text in passed] == [(200, True)]


def test_large_completion_passes_as_it_is_where_a_stream_was_asked_for(
    proxy: ProxyProcess, sandbox: SandboxClient
) -> None:
    body = '{"choices": []' + LARGE + "}"
    passed = answers(proxy, sandbox, reply(body), COMPLETIONS[0], stream=True)
    assert [(status, text == body) for status, text in passed] == [(200, True)]


def test_page_where_sound_was_asked_for_is_502_and_sound_passes(proxy: ProxyProcess, sandbox: SandboxClient) -> None:
    speech = "/v1/audio/speech"
    assert answers(proxy, sandbox, reply(PAGE, "Text/HTML; charset=utf-8"), speech) == {(502, "upstream_unavailable")}
    assert answers(proxy, sandbox, reply("<sound", "audio/mpeg"), speech) == {(200, "<sound")}
