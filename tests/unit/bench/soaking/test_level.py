"""What is compared before a load and after it: more of anything is told, and fewer workers too."""

from dataclasses import replace

import pytest

from bench.soaking.level import Level

BEFORE = Level(
    workers=2,
    descriptors=20,
    threads=5,
    master_descriptors=9,
    upstream_connections=3,
    caller_connections=0,
    in_flight=0,
)


def test_same_again_and_less_is_not_above() -> None:
    assert BEFORE.above(BEFORE) == {}
    assert replace(BEFORE, upstream_connections=0, threads=4).above(BEFORE) == {}


@pytest.mark.parametrize("name", list(vars(BEFORE)))
def test_one_more_of_anything_is_told(name: str) -> None:
    more = vars(BEFORE)[name] + 1
    assert replace(BEFORE, **{name: more}).above(BEFORE) == {name: f"{more}, before {more - 1}"}


def test_worker_that_did_not_come_back_is_told() -> None:
    assert replace(BEFORE, workers=1).above(BEFORE) == {"workers": "1, before 2"}
