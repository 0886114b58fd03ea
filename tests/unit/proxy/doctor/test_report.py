from collections.abc import Iterator

import pytest
from loguru import logger

from proxy.doctor.report import Report, in_milliseconds, in_words, take_over_log


def test_each_line_begins_with_its_state(report: Report, lines: list[str]) -> None:
    report.ok("connect", "a")
    report.fail("TLS", "b")
    report.warn("clock", "c")
    report.skip("chat", "d")
    assert lines == ["ok    connect: a", "FAIL  TLS: b", "warn  clock: c", "skip  chat: d"]


@pytest.mark.parametrize(("step", "is_good"), [("ok", True), ("warn", True), ("skip", True), ("fail", False)])
def test_only_a_fail_makes_it_bad(report: Report, step: str, is_good: bool) -> None:
    getattr(report, step)("request", "x")
    assert report.is_good == is_good


def test_a_good_line_after_a_fail_does_not_make_it_good(report: Report) -> None:
    report.fail("request", "x")
    report.ok("request", "x")
    assert not report.is_good
    assert (report.counts["FAIL"], report.counts["ok"]) == (1, 1)


def test_headings_are_parted_by_a_blank_line(report: Report, lines: list[str]) -> None:
    report.heading("first")
    report.ok("connect", "a")
    report.heading("second")
    assert lines == ["first", "ok    connect: a", "", "second"]


@pytest.fixture
def _log_restored() -> Iterator[None]:
    yield
    logger.remove()


@pytest.mark.usefixtures("_log_restored")
def test_log_warnings_become_lines_without_credentials_and_the_rest_is_dropped() -> None:
    told: list[str] = []
    take_over_log(told.append)
    logger.info("token source corp: renewed")
    logger.warning("store: {} is away", "redis")
    logger.error("odd header Bearer s3cret-mark")
    assert told == ["store: redis is away", "odd header Bearer ***"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.25, "0.25 s"),
        (9.94, "9.9 s"),
        (10, "10 s"),
        (85.4, "85 s"),
        (599, "599 s"),
        (600, "10 min"),
        (5999, "100 min"),
        (6000, "2 h"),
        (359_999, "100 h"),
        (360_000, "4 days"),
        (2_592_000, "30 days"),
    ],
)
def test_times_are_told_in_the_unit_that_fits(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


def test_milliseconds_are_whole() -> None:
    assert in_milliseconds(0.0124) == "12 ms"
