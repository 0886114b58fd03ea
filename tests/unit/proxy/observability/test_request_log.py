import json
from io import StringIO
from typing import Any

import pytest

from proxy.observability.logging import set_up
from proxy.observability.request_log import NAME_MOST_CHARS, RequestLog


def entry_of(log: StringIO, **facts: Any) -> dict[str, Any]:
    """The line of a request, as JSON."""
    set_up(stream=log, line_format="json")
    RequestLog("id-1", "POST", "/v1/chat/completions", **facts).write()
    assert log.getvalue().count("\n") == 1
    return dict(json.loads(log.getvalue()))


def test_line_has_the_facts_of_the_request(log: StringIO) -> None:
    entry = entry_of(
        log, started=0, first_byte_at=0.5, caller="a", model="m", upstream="llm", status=200, bytes_sent=7, cause="why"
    )
    assert entry["duration_ms"] > 500
    del entry["time"], entry["message"], entry["duration_ms"]
    assert entry == {
        "level": "INFO",
        "request_id": "id-1",
        "caller": "a",
        "method": "POST",
        "route": "/v1/chat/completions",
        "model": "m",
        "upstream": "llm",
        "status": 200,
        "outcome": "done",
        "first_byte_ms": 500,
        "bytes": 7,
        "cause": "why",
    }


def test_text_line_has_one_word_for_each_fact(log: StringIO) -> None:
    message = entry_of(log, caller="a", model="m", status=200, bytes_sent=7)["message"]
    first, *words = message.split(" ")
    assert first == "request"
    facts = dict(word.split("=", 1) for word in words)
    del facts["duration_ms"]
    assert facts == {
        "request_id": "id-1",
        "caller": "a",
        "method": "POST",
        "route": "/v1/chat/completions",
        "model": "m",
        "upstream": "-",
        "status": "200",
        "outcome": "done",
        "bytes": "7",
    }


@pytest.mark.parametrize(
    ("model", "written"),
    [
        ("gpt-4o", "model=gpt-4o "),
        ("a b", "model='a b' "),
        ("a\nstatus=200", "model='a\\nstatus=200' "),
        ("a\r\n\x1b[31m", "model='a\\r\\n\\x1b[31m' "),
        ('a"b', "model='a\"b' "),
        ("ä😀", "model='\\xe4\\U0001f600' "),
        ("a\u2028b", "model='a\\u2028b' "),
        ("{0} {x}", "model='{0} {x}' "),
        ("<red>x</red>", "model=<red>x</red> "),
    ],
)
def test_callers_text_passes_for_no_other_line_or_field(log: StringIO, model: str, written: str) -> None:
    assert written in entry_of(log, model=model)["message"]


@pytest.mark.parametrize("length", [NAME_MOST_CHARS - 1, NAME_MOST_CHARS, NAME_MOST_CHARS + 1, 100_000])
def test_callers_text_is_cut(log: StringIO, length: int) -> None:
    assert len(entry_of(log, model="x" * length)["model"]) == min(length, NAME_MOST_CHARS)


@pytest.mark.parametrize(
    ("status", "outcome", "level"),
    [
        (200, "done", "INFO"),
        (404, "done", "INFO"),
        (499, "caller_gone", "INFO"),
        (499, "done", "INFO"),
        (500, "done", "WARNING"),
        (502, "done", "WARNING"),
        (200, "cut", "WARNING"),
        (200, "timeout", "WARNING"),
        (200, "caller_gone", "INFO"),
    ],
)
def test_line_is_a_warning_where_we_or_the_upstream_failed(
    log: StringIO, status: int, outcome: str, level: str
) -> None:
    assert entry_of(log, status=status, outcome=outcome)["level"] == level
