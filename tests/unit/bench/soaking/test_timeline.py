"""When upheavals are due: all in the first half, and enough of each kind in a run of any length."""

from collections import Counter
from random import Random

import pytest

from bench.soaking.timeline import UPHEAVALS_UNTIL, timeline


@pytest.mark.parametrize(
    ("total_s", "reloads", "kills"), [(30.0, 4, 3), (120.0, 4, 3), (600.0, 5, 4), (14400.0, 120, 80)]
)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_upheavals_are_many_and_leave_the_second_half_in_peace(
    total_s: float, reloads: int, kills: int, seed: int
) -> None:
    due = timeline(total_s, Random(seed))
    counts = Counter(one.event for one in due)
    assert due == sorted(due)
    assert (counts["reload"], counts["kill"]) == (reloads, kills)
    assert counts["issuer away"] == counts["issuer back"] == reloads
    assert due[-1].at_s <= UPHEAVALS_UNTIL * total_s * (1 + 1e-9)
