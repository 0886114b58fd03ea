"""How many requests and connections fit the descriptors that this process may have."""

import resource
from collections.abc import Callable, Iterator

import pytest
from loguru import logger

from proxy.descriptors import RESERVED, connections_most, idle_most, raise_limit, requests_most, warn_if_fewer

FREE = 1000
MUCH = 10**6

Limit = Callable[[int], None]


@pytest.fixture
def allow() -> Iterator[Limit]:
    """Sets how many descriptors this process may have, until the test's end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield lambda descriptors: resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, hard))
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def logged() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lines.append, level="WARNING", format="{level} {message}")
    yield lines
    logger.remove(sink)


@pytest.mark.parametrize(("wanted", "most"), [(1, 1), (299, 299), (300, 300), (301, 300), (MUCH, 300)])
def test_requests_are_as_many_as_wanted_up_to_three_tenths_of_the_free_descriptors(
    allow: Limit, wanted: int, most: int
) -> None:
    allow(RESERVED + FREE)
    assert requests_most(wanted) == most


@pytest.mark.parametrize(("wanted", "most"), [(1, 1), (400, 400), (401, 400), (MUCH, 400)])
def test_connections_from_callers_are_as_many_as_wanted_up_to_two_fifths(allow: Limit, wanted: int, most: int) -> None:
    allow(RESERVED + FREE)
    assert connections_most(wanted) == most


@pytest.mark.parametrize("descriptors", [100, 256, 1024, 1063, 4096])
def test_all_connections_from_callers_and_to_upstreams_fit_together(allow: Limit, descriptors: int) -> None:
    allow(descriptors)
    requests = requests_most(MUCH)
    assert connections_most(MUCH) + requests + 3 * idle_most(requests, 3) <= descriptors - RESERVED
    assert connections_most(MUCH) > requests_most(MUCH)


def test_one_request_is_served_where_hardly_a_descriptor_is_free(allow: Limit) -> None:
    allow(RESERVED)
    assert requests_most(MUCH) == 1
    assert connections_most(MUCH) == 2


def test_limit_is_raised_to_what_is_wanted_and_no_further(allow: Limit) -> None:
    allow(RESERVED)
    raise_limit(30, 40)
    assert (requests_most(MUCH), connections_most(MUCH)) == (30, 40)


def test_limit_is_raised_as_far_as_this_user_may(allow: Limit) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allow(RESERVED + FREE)
    raise_limit(10**9, 10**9)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)


def test_limit_is_never_lowered(allow: Limit) -> None:
    allow(RESERVED + FREE)
    raise_limit(1, 1)
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == RESERVED + FREE


def test_fewer_requests_than_wanted_are_told_in_one_warning_with_both_figures_and_the_limit(
    allow: Limit, logged: list[str]
) -> None:
    allow(RESERVED + FREE)
    warn_if_fewer(301)
    (line,) = logged
    assert line.startswith("WARNING server.max_concurrent_requests: 300 in place of 301, ")
    assert f"{RESERVED + FREE} file descriptors" in line
    assert line.count("\n") == 1


def test_nothing_is_told_where_as_many_are_served_as_wanted(allow: Limit, logged: list[str]) -> None:
    allow(RESERVED + FREE)
    warn_if_fewer(300)
    assert logged == []
