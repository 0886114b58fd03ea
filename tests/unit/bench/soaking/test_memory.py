"""The growth of a process: told by the slope of its own samples, and only for those that lived through the time."""

import os
from unittest.mock import ANY

import pytest

from bench.soaking.memory import Growth, MemoryWatch, growth_of

MB = 10**6
OLD, LEAKS, NEW = 1, 2, 3


@pytest.mark.parametrize("slope", [0, MB, -MB])
def test_growth_along_a_straight_line_has_no_error(slope: int) -> None:
    growth = growth_of(7, [(100.0 + at, 90 * MB + slope * at) for at in range(10)])
    assert growth == Growth(7, 9, pytest.approx(9 * slope), pytest.approx(0, abs=9), 90 * MB, 90 * MB + 9 * slope)


def test_error_is_that_of_least_squares() -> None:
    # Residuals of 1 and -1 in turn: their sum of squares 3.2 by 2 degrees of freedom, by 5 for the times' squares.
    growth = growth_of(7, [(0.0, 1), (1.0, -1), (2.0, 1), (3.0, -1)])
    assert (growth.grown, growth.error) == (pytest.approx(3 * -0.4), pytest.approx(3 * (3.2 / 2 / 5) ** 0.5))


def test_old_worker_that_ends_hides_no_growing_one() -> None:
    watch = MemoryWatch(0)
    watch.samples = {
        OLD: [(at, 900 * MB) for at in range(15)],
        LEAKS: [(at, 90 * MB + at * MB) for at in range(30)],
        NEW: [(at, 80 * MB) for at in range(20, 30)],
    }
    assert watch.growths(10, 20) == [Growth(LEAKS, 19, pytest.approx(19 * MB), ANY, 100 * MB, 119 * MB)]


def test_too_few_looks_tell_nothing() -> None:
    watch = MemoryWatch(0)
    watch.samples = {LEAKS: [(at, MB) for at in range(9)]}
    assert watch.growths(0, 10) == []
    assert MemoryWatch(0).growths(0, 10) == []


def test_look_takes_the_process_and_its_children() -> None:
    watch = MemoryWatch(os.getpid())
    watch.look()
    [(at, size)] = watch.samples[os.getpid()]
    assert at > 0
    assert size > MB
