"""The folder in which all workers count: prometheus_client's multiprocess files, with a place for each worker.

The library maps a file for each process id, and would so keep two files of every worker that ever ran. Here a worker
takes the first place that no living process has, goes on counting where the one before stopped, and has it until it
ends, however it ends: the lock goes with the process. So nothing is lost with a killed worker, and a scrape reads as
many files as workers have run at the same time.

Room is allocated when a place is taken. A mapped file that is sparse would end the worker with SIGBUS where the file
system is full.
"""

import fcntl
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from loguru import logger
from prometheus_client import Metric, values
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"  # the library reads it whenever it opens a file
# More than any series of ours takes in a file: its name, its help and its labels of at most 64 characters.
SERIES_BYTES = 384
_PREFIX = "metrics-"


class MetricsFolder:
    """A fresh folder of one gunicorn master, for as long as it runs."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock  # inherited by the workers: the folder is in use until the last process has ended

    @classmethod
    def make(cls, within: Path) -> "MetricsFolder":
        """Make a private folder, tell the workers to come by the environment, and remove what killed masters left.

        Raises OSError.
        """
        os.environ.pop(VARIABLE, None)
        guard = os.open(within, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(guard, fcntl.LOCK_EX)  # a folder without its lock would be taken for a killed master's
            for left in within.glob(f"{_PREFIX}*"):
                _remove_unless_used(left)
            path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=within))  # 0700
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(lock, fcntl.LOCK_EX)
        finally:
            os.close(guard)
        os.environ[VARIABLE] = str(path)
        return cls(path, lock)

    def remove(self) -> None:
        """Remove the folder, after the last worker has ended."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def folder_of_environment() -> Path | None:
    """The folder that the master has made; None without gunicorn, or where it could make none."""
    path = os.environ.get(VARIABLE)
    return None if path is None else Path(path)


def take_place(folder: Path | None, *, counter_series: int, histogram_series: int, gauge_series: int) -> Path | None:
    """Let metrics that are made from now on count in a place of the folder. The folder again, or None.

    None: there is no folder, or it cannot be used (told in the log); then metrics count for this process alone.
    """
    values.ValueClass = values.MutexValue
    if folder is None:
        return None
    try:
        number = _lock_place(folder)
        mark_process_dead(number, str(folder))  # its gauges were the last worker's
        _make_room(folder / f"counter_{number}.db", counter_series)
        _make_room(folder / f"histogram_{number}.db", histogram_series)
        _make_room(folder / f"gauge_livesum_{number}.db", gauge_series)
    except OSError as error:
        logger.error("metrics: {}: {}; this worker counts for itself", folder, error.strerror)
        return None
    values.ValueClass = values.MultiProcessValue(lambda: number)
    return folder


def collect_shared(folder: Path) -> Iterable[Metric]:
    """The sums over all places, those of ended workers too; gauges of the living only."""
    for file in folder.glob("gauge_live*.db"):
        _drop_gauges_unless_used(folder, int(file.stem.rpartition("_")[2]))
    files = sorted(map(str, folder.glob("*.db")))
    collected: Iterable[Metric] = MultiProcessCollector.merge(files)
    return collected


def _lock_place(folder: Path) -> int:
    """The number of the first free place, locked until this process ends."""
    for number in itertools.count():
        lock = os.open(_lock_file(folder, number), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if _try_lock(lock):
            return number
        os.close(lock)
    raise AssertionError  # count() does not end


def _drop_gauges_unless_used(folder: Path, number: int) -> None:
    lock = os.open(_lock_file(folder, number), os.O_RDWR | os.O_CLOEXEC)
    try:
        if _try_lock(lock):
            mark_process_dead(number, str(folder))
    finally:
        os.close(lock)


def _remove_unless_used(left: Path) -> None:
    with suppress(OSError):
        lock = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if _try_lock(lock):
                shutil.rmtree(left, ignore_errors=True)
        finally:
            os.close(lock)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lock_file(folder: Path, number: int) -> Path:
    return folder / f"place-{number}.lock"


def _make_room(file: Path, series: int) -> None:
    """Allocate a file for so many series more than it has; a new one appears whole, as scrapes read all there are."""
    target, held = file.with_suffix(".new"), 0
    if file.exists():
        target, held = file, len(list(MmapedDict.read_all_values_from_file(str(file))))
    with target.open("ab") as opened:
        os.posix_fallocate(opened.fileno(), 0, SERIES_BYTES * (held + series))
    target.replace(file)
