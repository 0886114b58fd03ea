import json
import re
import sys
from io import StringIO
from typing import Any

import pytest
from loguru import logger

from proxy.observability.logging import Format, set_up
from proxy.observability.request_log import NAME_MOST_CHARS, AccessLog, RequestLog


def request_of(**facts: Any) -> RequestLog:
    return RequestLog("id-1", "POST", "/v1/chat/completions", **facts)


def entry_of(log: StringIO, **facts: Any) -> dict[str, Any]:
    """The line of a request, as JSON."""
    AccessLog(stream=log, line_format="json").write(request_of(**facts))
    assert log.getvalue().count("\n") == 1
    return dict(json.loads(log.getvalue()))


def test_line_has_the_facts_of_the_request(log: StringIO) -> None:
    entry = entry_of(
        log,
        started=0,
        first_byte_at=0.5,
        caller="a",
        model="m",
        upstream="llm",
        failed_over_from="other",
        status=200,
        bytes_sent=7,
        cause="why",
        frames=3,
        usage=(10, 2),
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
        "failed_over_from": "other",
        "status": 200,
        "outcome": "done",
        "first_byte_ms": 500,
        "frames": 3,
        "bytes": 7,
        "prompt_tokens": 10,
        "completion_tokens": 2,
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
        ("a\nstatus=200", "model=a "),
        ("a\r\n\x1b[31m", "model=a "),
        ("a\x7fb", "model=a "),
        ("\0a", "model=- "),
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


def test_callers_text_is_not_kept_longer_than_its_line(log: StringIO) -> None:
    model = "x" * 100_000
    references = sys.getrefcount(model)
    entry_of(log, model=model)
    assert sys.getrefcount(model) == references


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


@pytest.mark.parametrize("line_format", ["text", "json"])
def test_line_looks_like_those_of_all_others(log: StringIO, line_format: Format) -> None:
    set_up(stream=log, line_format=line_format)
    AccessLog(stream=log, line_format=line_format).write(request_of())
    logger.info(log.getvalue().partition("request ")[2].strip() if line_format == "text" else "x")
    ours, other = log.getvalue().splitlines()
    if line_format == "json":
        assert list(json.loads(ours))[:3] == list(json.loads(other))
        times = [json.loads(line)["time"] for line in (ours, other)]
    else:
        times = [line.partition(" INFO     ")[0] for line in (ours, other)]
    first, second = (re.sub(r"\d", "0", moment) for moment in times)
    assert first == second


@pytest.mark.parametrize(("level", "written"), [("DEBUG", 2), ("INFO", 2), ("WARNING", 1), ("ERROR", 0)])
def test_line_is_written_where_its_level_is(log: StringIO, level: str, written: int) -> None:
    access_log = AccessLog(stream=log, level=level)
    access_log.write(request_of(status=200))
    access_log.write(request_of(status=502))
    assert log.getvalue().count("\n") == written


@pytest.mark.parametrize(
    "model",
    [
        *("Bearer sk-mark", "authorization: sk-mark", "api-key=sk-mark", "sk-mark-0123456789abcdef"),
        *("x" * (NAME_MOST_CHARS - before) + "/sk-mark-0123456789abcdef" for before in (1, 9, 18, 25)),
    ],
)
def test_what_looks_like_a_credential_is_no_part_of_the_line(log: StringIO, model: str) -> None:
    assert "sk-mark" not in str(entry_of(log, model=model))


def test_log_that_cannot_be_written_harms_nobody() -> None:
    class Full(StringIO):
        def write(self, _: str) -> int:
            raise OSError(28, "No space left on device")

    AccessLog(stream=Full()).write(request_of())
    closed = StringIO()
    closed.close()
    AccessLog(stream=closed).write(request_of())


@pytest.mark.parametrize(
    ("times", "overhead_s"),
    [
        pytest.param({}, None, id="no upstream was asked"),
        pytest.param({"sent_at": 1.5}, None, id="no byte was sent"),
        pytest.param({"sent_at": 1.5, "first_byte_at": 9}, 0.5, id="stream: all after sending is the upstream's"),
        pytest.param({"sent_at": 1.5, "received_at": 9, "first_byte_at": 9.25}, 0.75, id="whole answer"),
    ],
)
def test_overhead_is_the_time_that_was_not_the_upstreams(times: dict[str, float], overhead_s: float | None) -> None:
    assert request_of(started=1, **times).overhead_s() == overhead_s
