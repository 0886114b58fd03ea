"""Workers that count together, as real processes: nothing is lost however they end."""

import fcntl
import os
import resource
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from loguru import logger

from proxy.observability.metrics import Metrics
from proxy.observability.metrics_folder import VARIABLE, MetricsFolder, collect_shared, folder_of_environment
from tests.support.counting_process import CountingProcess, Samples, samples_of
from tests.support.proxy_process import ROOT

REQUESTS = "llm_proxy_requests_total /chat/completions 200 llm"
IN_FLIGHT = "llm_proxy_in_flight"


@pytest.fixture
def logs() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), format="{level} {message}")
    yield lines
    logger.remove(sink)


@pytest.fixture
def kept_variable() -> Iterator[None]:
    """The environment's entry as it was, after a test of what the master does."""
    before = os.environ.pop(VARIABLE, None)
    yield
    os.environ.pop(VARIABLE, None)
    if before is not None:
        os.environ[VARIABLE] = before


def scrape(folder: Path) -> Samples:
    return samples_of(collect_shared(folder))


def sizes(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_size for file in folder.glob("*.db")}


def test_the_counts_of_all_workers_are_added_up(tmp_path: Path) -> None:
    with CountingProcess(tmp_path) as one, CountingProcess(tmp_path) as other:
        one.tell("begin", "begin", "end")
        other.tell("begin", "begin", "begin", "end", "end")
        samples = scrape(tmp_path)
    assert (samples[REQUESTS], samples[IN_FLIGHT]) == (3, 2)
    assert samples["llm_proxy_request_seconds_count"] == 3
    assert samples["llm_proxy_request_seconds_bucket 2.5"] == 3
    assert samples["llm_proxy_request_seconds_bucket +Inf"] == 3
    assert samples["llm_proxy_request_seconds_sum"] == 4.5


def test_a_killed_worker_leaves_its_counts_and_nothing_in_flight(tmp_path: Path) -> None:
    with CountingProcess(tmp_path) as one, CountingProcess(tmp_path) as other:
        one.tell("begin", "end", "begin")
        other.tell("begin")
        one.kill()
        samples = scrape(tmp_path)
        assert (samples[REQUESTS], samples[IN_FLIGHT]) == (1, 1)


def test_a_worker_counts_on_in_the_place_of_an_ended_one(tmp_path: Path) -> None:
    with CountingProcess(tmp_path) as one, CountingProcess(tmp_path):
        one.tell("begin", "end", "begin")
        files = sizes(tmp_path).keys()
        one.kill()
        with CountingProcess(tmp_path) as next_one:
            assert (scrape(tmp_path)[REQUESTS], scrape(tmp_path)[IN_FLIGHT]) == (1, 0)
            next_one.tell("begin", "begin", "end")
            assert (scrape(tmp_path)[REQUESTS], scrape(tmp_path)[IN_FLIGHT]) == (2, 1)
            assert sizes(tmp_path).keys() == files


def test_counts_only_go_up_over_many_generations_of_workers(tmp_path: Path) -> None:
    for count in range(1, 4):
        with CountingProcess(tmp_path) as process:
            process.tell("begin", "end")
            assert scrape(tmp_path)[REQUESTS] == count
    assert scrape(tmp_path)[REQUESTS] == 3
    assert len(sizes(tmp_path)) == 2  # of one place, without the gauges


@pytest.mark.parametrize("upstream", ["llm", "u" * 64], ids=["short name", "longest name"])
def test_no_file_grows_after_the_start_however_many_series_there_are(tmp_path: Path, upstream: str) -> None:
    with CountingProcess(tmp_path, upstream) as process:
        before = sizes(tmp_path)
        process.tell("flood")
        assert sizes(tmp_path) == before
        assert all(file.stat().st_blocks * 512 >= file.stat().st_size for file in tmp_path.glob("*.db"))


def test_there_is_room_for_new_names_beside_those_of_the_worker_before(tmp_path: Path) -> None:
    for upstream in ("one", "two", "three"):
        with CountingProcess(tmp_path, upstream) as process:
            before = sizes(tmp_path)
            process.tell("flood")
            assert sizes(tmp_path) == before
            assert scrape(tmp_path)[f"llm_proxy_requests_total /chat/completions 1 {upstream}"] == 1


@contextmanager
def no_room() -> Iterator[None]:
    """No file of this process may grow past a few bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_worker_without_room_counts_for_itself_and_says_so(tmp_path: Path, logs: list[str]) -> None:
    with CountingProcess(tmp_path) as process:
        process.tell("begin", "end")
        with no_room():
            metrics = Metrics(["llm"], ["corp"], tmp_path)
        metrics.stream_ended("cut")
        assert samples_of(metrics.collect())["llm_proxy_streams_total cut"] == 1
        assert (scrape(tmp_path)[REQUESTS], scrape(tmp_path)["llm_proxy_streams_total cut"]) == (1, 0)
    assert [line for line in logs if line.startswith("ERROR metrics: ") and "counts for itself" in line]


def test_a_worker_whose_folder_is_gone_counts_for_itself_and_says_so(tmp_path: Path, logs: list[str]) -> None:
    metrics = Metrics(["llm"], ["corp"], tmp_path / "gone")
    metrics.stream_ended("cut")
    assert samples_of(metrics.collect())["llm_proxy_streams_total cut"] == 1
    assert [line for line in logs if "No such file" in line]


def test_a_folder_that_goes_away_stops_no_worker(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with CountingProcess(folder) as process:
        process.tell("begin", "end")
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
        process.tell("begin", "end", "flood")
        assert scrape(folder) == {}


@pytest.mark.usefixtures("kept_variable")
def test_the_master_makes_a_private_folder_that_workers_find_and_removes_it(tmp_path: Path) -> None:
    assert folder_of_environment() is None
    folder = MetricsFolder.make(tmp_path)
    assert folder_of_environment() == folder.path
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    (folder.path / "counter_0.db").touch()
    folder.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("kept_variable")
def test_each_master_has_a_folder_of_its_own(tmp_path: Path) -> None:
    one, other = MetricsFolder.make(tmp_path), MetricsFolder.make(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted((one.path, other.path))
    one.remove()
    assert list(tmp_path.iterdir()) == [other.path]
    other.remove()


@pytest.mark.usefixtures("kept_variable")
def test_the_folder_of_a_killed_master_is_removed_at_the_next_start(tmp_path: Path) -> None:
    code = f"""
import os, pathlib, signal
from proxy.observability.metrics_folder import MetricsFolder
MetricsFolder.make(pathlib.Path({str(tmp_path)!r}))
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    (left,) = tmp_path.iterdir()
    (tmp_path / "tokens.json").touch()
    folder = MetricsFolder.make(tmp_path)
    assert not left.exists()
    assert sorted(tmp_path.iterdir()) == sorted((folder.path, tmp_path / "tokens.json"))
    folder.remove()


@pytest.mark.usefixtures("kept_variable")
def test_the_folder_stays_while_a_worker_of_a_killed_master_lives(tmp_path: Path) -> None:
    folder = tmp_path / "metrics-left"
    folder.mkdir(0o700)
    held = os.open(folder, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)  # as a worker has it from its master
    MetricsFolder.make(tmp_path).remove()
    assert folder.exists()
    os.close(held)
    MetricsFolder.make(tmp_path).remove()
    assert not folder.exists()


@pytest.mark.usefixtures("kept_variable")
def test_where_no_folder_can_be_made_workers_find_none(tmp_path: Path) -> None:
    os.environ[VARIABLE] = str(tmp_path)
    with pytest.raises(OSError, match="No such file"):
        MetricsFolder.make(tmp_path / "gone")
    assert folder_of_environment() is None
