"""The table of the soak: all rows pass where everything held, and whatever did not hold fails its own row."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bench.soaking import table
from bench.soaking.access_lines import AccessLog
from bench.soaking.books import LINES, Books
from bench.soaking.level import Level
from bench.soaking.memory import MemoryWatch
from bench.soaking.record import Register
from bench.soaking.table import Found, rows
from bench.soaking.totals import TOTALS, Totals
from bench.soaking.upheavals import Kill, Upheavals

MB = 10**6
LEVEL = Level(2, 20, 5, 9, 3, 0, 0)


def good() -> Found:
    """One request and its end at all places, and a scrape that only the log has."""
    register, log = Register("soak-"), AccessLog(Path("/dev/null"))
    register.started = 3
    log.statuses.update({"200": 3})
    log.ends.update({"done": 1})
    upheavals = Upheavals(None, 5.0, [Kill(1.0, 1.1, frozenset())], [2.0])  # type: ignore[arg-type]  # no proxy is asked
    books = Books(register, log, list, upheavals, issuer_fails=False)
    books.outcomes.update({"ok": 2, "no request": 1})
    books.reached = 2
    books.closed_after_s = [0.1]
    memory = MemoryWatch(0)
    memory.samples = {pid: [(float(at), 90 * MB) for at in range(0, 240, 5)] for pid in (1, 2, 3)}
    return Found(
        register=register,
        books=books,
        log=log,
        totals=Totals({"200": 2}, {"done": 1}, {"ok": 1}, 1, b""),
        upheavals=upheavals,
        upstream={"requests": 2, "tokens": {"valid": 2, "expired": 0}, "fetches": 1},
        leaks=[],
        before=LEVEL,
        after=LEVEL,
        settled_s=1.0,
        memory=memory,
        steady_from=10.0,
        history=[],
    )


def failed(found: Found, *, has_verdict: bool = True) -> list[str]:
    return [row.what for row in rows(found, has_verdict=has_verdict) if not row.passed]


def test_all_rows_pass_where_everything_held() -> None:
    assert failed(good()) == []


def break_rule(found: Found) -> Found:
    found.books.broken_count[LINES] = 1
    return found


def expire_token(found: Found) -> Found:
    return replace(found, upstream={**found.upstream, "tokens": {"valid": 2, "expired": 1}})


def forget_request(found: Found) -> Found:
    found.register.started += 1
    return found


def end_in_silence(found: Found) -> Found:
    found.books.outcomes.update({"ok": -1, "silent": 1})
    return found


def reach_upstream_unseen(found: Found) -> Found:
    return replace(found, upstream={**found.upstream, "requests": 3})


def spare_workers(found: Found) -> Found:
    found.upheavals.kills.clear()
    return found


def count_more(found: Found) -> Found:
    return replace(found, totals=replace(found.totals, statuses={"200": 4}))


def count_less(found: Found) -> Found:
    return replace(found, totals=replace(found.totals, statuses={}))


def count_other_end(found: Found) -> Found:
    return replace(found, totals=replace(found.totals, ends={"done": 1, "cut": 2}))


def complain(found: Found) -> Found:
    found.log.complaints.append("2026-11-22 10:00:00 ERROR no")
    return found


def close_late(found: Found) -> Found:
    found.books.closed_after_s.append(1.1)
    return found


def watch_nobody_leave(found: Found) -> Found:
    found.books.closed_after_s.clear()
    return found


def leak(found: Found) -> Found:
    """Of one worker alone: 16 MB in the time."""
    found.memory.samples[2] = [(at, size + int(at * 16 * MB / 225)) for at, size in found.memory.samples[2]]
    return found


def lose_worker(found: Found) -> Found:
    del found.memory.samples[2][-1]
    return found


@pytest.mark.parametrize(
    ("spoil", "row"),
    [
        (break_rule, LINES),
        (expire_token, "no token is used"),
        (lambda found: replace(found, leaks=["key"]), "no marked secret"),
        (complain, "no line of the log"),
        (forget_request, "the driver's"),
        (end_in_silence, "the driver's"),
        (reach_upstream_unseen, "the driver's"),
        (spare_workers, "the driver's"),
        (count_more, TOTALS),
        (count_less, TOTALS),
        (count_other_end, TOTALS),
        (close_late, "the upstream is closed"),
        (watch_nobody_leave, "the upstream is closed"),
        (lambda found: replace(found, after=replace(LEVEL, descriptors=21)), "descriptors"),
        (leak, "memory"),
        (lose_worker, "memory"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_did_not_hold_fails_its_row_alone(spoil: Callable[[Found], Found], row: str) -> None:
    [what] = failed(spoil(good()))
    assert what.startswith(row)


def test_short_run_gives_no_verdict_on_memory_and_says_so() -> None:
    found = leak(good())
    assert failed(found, has_verdict=False) == []
    [said] = [row.measured for row in rows(found, has_verdict=False) if row.what.startswith("memory")]
    assert said.startswith("no verdict")


def test_noise_that_could_hide_a_leak_is_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    found = good()
    found.memory.samples[2] = [
        (at, size + (40 * MB if n % 3 else 0)) for n, (at, size) in enumerate(found.memory.samples[2])
    ]
    assert [what for what in failed(found) if what.startswith("memory")]
    monkeypatch.setattr(table, "GROWS_MOST_MB", 100.0)
    assert failed(found) == []
