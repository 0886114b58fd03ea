"""The books of the soak: what agrees is settled without a word, and each kind of disagreement breaks its rule."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from bench.soaking.access_lines import Line
from bench.soaking.books import AGREEMENT, ANSWERS, BYTES, HEALTH, LINES, Books
from bench.soaking.record import Record, Register
from bench.soaking.upheavals import Kill, Upheavals

GOOD = Record("soak-1", "stream", began=10.0, port=5, ended=12.0, outcome="ok", status=200, body_bytes=9, sha256="aa")
LINE = Line("soak-1", "/v1/chat/completions", 200, "done", 9, 2000, is_stream=True)
ENTRY: dict[str, Any] = {
    "kind": "upstream",
    "model": "soak-1",
    "token": "valid",
    "status": 200,
    "faults": [],
    "end": "done",
    "at": 0.0,
    "ended_at": 0.0,
    "answer_sha256": "aa",
}


class FakeLog:
    def __init__(self, *lines: Line, drained: Sequence[float] = ()) -> None:
        self._lines = list(lines)
        self.drained = drained

    def take_new(self) -> list[Line]:
        lines, self._lines = self._lines, []
        return lines


class FakeRegister(Register):
    def __init__(self, *records: Record) -> None:
        super().__init__("soak-")
        self._ended.extend(records)


def settle(
    record: Record, lines: list[Line], entries: list[dict[str, Any]], drained: Sequence[float] = (), **upheavals: Any
) -> Books:
    happened = Upheavals(None, drain_s=5.0, **upheavals)  # type: ignore[arg-type]  # no proxy is asked
    log: Any = FakeLog(*lines, drained=drained)
    books = Books(FakeRegister(record), log, lambda: entries, happened, issuer_fails=False)
    books.turn(is_last=True)
    return books


def broken(books: Books) -> set[str]:
    return {rule for rule, count in books.broken_count.items() if count}


def cut(entry: dict[str, Any]) -> dict[str, Any]:
    return {**entry, "faults": ["cut"], "end": "fault"}


FAILED = replace(GOOD, outcome="upstream error")
LEFT = replace(GOOD, outcome="left", left_at=time.time())


@pytest.mark.parametrize(
    ("record", "lines", "entries"),
    [
        (GOOD, [LINE], [ENTRY]),
        (GOOD, [LINE], [{**ENTRY, "token": "revoked", "status": 401}, ENTRY]),
        (GOOD, [LINE], [{**ENTRY, "faults": ["no_done"], "answer_sha256": "bb"}]),
        (FAILED, [replace(LINE, outcome="cut")], [cut(ENTRY)]),
        (replace(GOOD, outcome="shed", status=503), [replace(LINE, status=503, outcome="error")], []),
        (LEFT, [replace(LINE, outcome="caller_gone", body_bytes=3)], [ENTRY]),
        (replace(LEFT, lines_least=0), [], []),
        (replace(GOOD, outcome="no request", lines_least=0), [], []),
        (replace(GOOD, outcome="no request", lines_least=0), [replace(LINE, identity="0", route="-", method="-")], []),
    ],
    ids=["good", "replayed", "ended for the upstream", "cut", "shed", "left", "reset", "half a head", "no HTTP"],
)
def test_what_agrees_breaks_no_rule(record: Record, lines: list[Line], entries: list[dict[str, Any]]) -> None:
    books = settle(record, lines, entries)
    assert broken(books) == set(), books.broken
    assert books.outcomes == {record.outcome: 1}


@pytest.mark.parametrize(
    ("record", "lines", "entries", "rule"),
    [
        (GOOD, [LINE], [{**ENTRY, "answer_sha256": "bb"}], BYTES),
        (GOOD, [], [ENTRY], LINES),
        (GOOD, [LINE, LINE], [ENTRY], LINES),
        (GOOD, [LINE, replace(LINE, identity="soak-9")], [ENTRY], LINES),
        (GOOD, [LINE, replace(LINE, identity="other")], [ENTRY], LINES),
        (replace(GOOD, outcome="no request", lines_least=0), [LINE], [], LINES),
        (GOOD, [replace(LINE, outcome="caller_gone")], [ENTRY], AGREEMENT),
        (GOOD, [replace(LINE, body_bytes=8)], [ENTRY], AGREEMENT),
        (GOOD, [LINE], [], AGREEMENT),
        (GOOD, [LINE], [ENTRY, ENTRY], AGREEMENT),
        (GOOD, [LINE], [ENTRY, {**ENTRY, "model": "soak-9"}], AGREEMENT),
        (GOOD, [LINE], [cut(ENTRY)], AGREEMENT),
        (FAILED, [replace(LINE, outcome="cut")], [ENTRY], AGREEMENT),
        (FAILED, [replace(LINE, outcome="cut")], [{**ENTRY, "faults": ["delay", "sse_crlf"]}], AGREEMENT),
        (
            replace(GOOD, outcome="refused", status=401),
            [replace(LINE, status=401, outcome="error")],
            [ENTRY],
            AGREEMENT,
        ),
        (replace(GOOD, outcome="silent"), [LINE], [ENTRY], ANSWERS),
        (replace(GOOD, outcome="broken"), [LINE], [ENTRY], ANSWERS),
        (replace(GOOD, fault="a secret in the answer"), [LINE], [ENTRY], ANSWERS),
        (replace(GOOD, kind="health", outcome="broken"), [LINE], [], HEALTH),
        (replace(GOOD, kind="health", ended=15.1), [LINE], [], HEALTH),
    ],
    ids=[
        *("other bytes", "no line", "two lines", "a line too many", "nobody's request", "a line of half a head"),
        *("the line says gone", "the line counts less", "never came upstream", "asked twice", "a stranger upstream"),
        *("good though cut", "an error without a cause", "an error after what is harmless", "refused and sent on"),
        *("silence", "broken off", "a secret", "health breaks off", "health comes late"),
    ],
)
def test_what_does_not_agree_breaks_its_rule(
    record: Record, lines: list[Line], entries: list[dict[str, Any]], rule: str
) -> None:
    assert broken(settle(record, lines, entries)) == {rule}


@pytest.mark.parametrize(
    ("kill", "is_killed"),
    [
        (Kill(11.0, 11.1, frozenset({5})), True),
        (Kill(11.0, 11.1, frozenset({6})), False),
        (Kill(13.0, 13.1, frozenset({5})), False),
        (Kill(9.9, 10.1, frozenset({5})), True),
        (Kill(9.8, 9.9, frozenset({5})), False),
    ],
    ids=["had it", "had another", "after its end", "while it began", "before its begin"],
)
def test_only_the_requests_of_a_killed_worker_may_break_off(kill: Kill, is_killed: bool) -> None:
    books = settle(replace(GOOD, outcome="broken"), [], [ENTRY], kills=[kill])
    assert (books.outcomes["killed"] == 1) == is_killed
    assert (broken(books) == set()) == is_killed


# The record of all of these ends at 12.
@pytest.mark.parametrize(
    ("reloaded_at", "drained", "has_cause"),
    [(6.0, [11.5], True), (6.0, [], False), (6.0, [13.5], False), (6.0, [1.5], False), (9.0, [11.5], False)],
    ids=["with its worker", "no worker's time was over", "before", "long after", "the worker had not its whole time"],
)
def test_only_the_end_of_a_drain_is_the_cause_of_an_error(
    reloaded_at: float, drained: list[float], has_cause: bool
) -> None:
    record, line = replace(FAILED, began=1.0), replace(LINE, outcome="cut")
    books = settle(record, [line], [ENTRY], drained, reloads=[reloaded_at])
    assert (broken(books) == set()) == has_cause


@pytest.mark.parametrize(("status", "may_break_off"), [(0, True), (200, False)], ids=["no head yet", "half an answer"])
def test_answer_that_has_begun_does_not_break_off_at_the_end_of_a_drain(status: int, may_break_off: bool) -> None:
    record = replace(GOOD, began=5.5, outcome="broken", status=status)
    books = settle(record, [LINE], [ENTRY], [11.5], reloads=[6.0])
    assert (broken(books) == set()) == may_break_off


@pytest.mark.parametrize(("closed_after_s", "has_cause"), [(-0.5, True), (1.0, True), (-1.5, False), (2.5, False)])
def test_request_may_fail_on_a_connection_that_the_upstream_closes_just_then(
    closed_after_s: float, has_cause: bool
) -> None:
    began = time.monotonic() - 60
    record = replace(FAILED, began=began, ended=began + 2, status=502)
    line = replace(LINE, status=502, outcome="error")
    closed = {
        **ENTRY,
        "model": "soak-0",
        "faults": ["no_keepalive_notice"],
        "ended_at": time.time() - 60 + closed_after_s,
    }
    books = settle(record, [line], [closed])
    assert any(said.startswith(f"{record.identity} ") for said in books.broken[AGREEMENT]) != has_cause


@pytest.mark.parametrize(
    ("asked_at", "ended_at", "after_s", "is_late"),
    [(90.0, 100.5, 0.5, False), (90.0, 101.5, 1.5, True), (103.0, 103.5, 0.5, False)],
    ids=["in time", "late", "asked after the caller had left"],
)
def test_closing_counts_from_when_the_caller_has_left_and_the_upstream_is_asked(
    asked_at: float, ended_at: float, after_s: float, is_late: bool
) -> None:
    entry = {**ENTRY, "at": asked_at, "ended_at": ended_at, "end": "caller_gone"}
    books = settle(replace(LEFT, left_at=100.0), [replace(LINE, outcome="caller_gone")], [entry])
    assert books.closed_after_s == [pytest.approx(after_s)]
    assert bool(books.closed_late) == is_late
