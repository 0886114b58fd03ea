"""The log as the soak reads it while it is written: access lines, and what the proxy complains of."""

import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from bench.soaking.access_lines import AccessLog, Line

TIME = "2026-11-22 10:00:00.000+0000"
LINE = (
    f"{TIME} INFO     request request_id=soak-1 client=good method=POST route=/v1/chat/completions model=m "
    "upstream=llm status=200 outcome=done first_byte_ms=5 duration_ms=2000 frames=3 bytes=90\n"
)
READ = Line("soak-1", "/v1/chat/completions", 200, "done", 90, 2000, is_stream=True)


def test_line_is_taken_once_and_when_it_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "log"
    log = AccessLog(file)
    for written, expected in ((LINE[:50], []), (LINE[:-1], []), (LINE, [READ]), (LINE, []), (LINE + LINE, [READ])):
        file.write_text(written)
        assert log.take_new() == expected
    assert (log.statuses, log.ends) == ({"200": 2}, {"done": 2})


@pytest.mark.parametrize(
    ("line", "is_complaint"),
    [
        (f"{TIME} ERROR    unexpected KeyError in a view", True),
        (f"{TIME} CRITICAL no more", True),
        ("Traceback (most recent call last):", True),
        (f"{TIME} WARNING  token source corp: 503", False),
        (f"{TIME} ERROR    Worker (pid:812) was sent SIGKILL! Perhaps out of memory?", False),
        (LINE.replace("/v1/chat/completions", "/ERROR").rstrip(), False),
    ],
)
def test_complaint_is_what_is_written_at_error(tmp_path: Path, line: str, is_complaint: bool) -> None:
    file = tmp_path / "log"
    file.write_text(f"{line}\n")
    log = AccessLog(file)
    log.take_new()
    assert log.complaints == [line] * is_complaint


def test_end_of_a_drain_is_told_by_the_clock_of_the_books(tmp_path: Path) -> None:
    moment = datetime.now().astimezone().isoformat(" ", "milliseconds")
    file = tmp_path / "log"
    file.write_text(f"{moment} WARNING  Worker graceful timeout (pid:812)\n")
    log = AccessLog(file)
    before = time.monotonic()
    log.take_new()
    [at] = log.drained
    assert before - 60 < at <= time.monotonic()


def test_cause_of_an_error_is_the_rest_of_its_line(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_text(LINE.rstrip() + " cause='the upstream: reset'\n")
    [line] = AccessLog(file).take_new()
    assert line == replace(READ, cause="'the upstream: reset'")
