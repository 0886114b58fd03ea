"""The store of one host: a file per source, so that all workers share one fetch, and a restart fetches nothing.

The folder is ours alone (0700), in memory (`$XDG_RUNTIME_DIR`, else `/dev/shm`), and gone after a reboot, as is the
clock that its instants are of. A file that is not ours, or that cannot be read, counts as none: a token is fetched
anew, and the file is replaced.
"""

import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from loguru import logger

from proxy.tokens.record import Record
from proxy.tokens.stores.memory import MemoryStore
from proxy.tokens.stores.record_json import RECORD_MOST_BYTES, UnreadableRecord, check_clock, dump_record, load_record
from proxy.tokens.token import boot_clock

LOOK_EVERY_S = 0.25
ALONE_S = 5.0


class StoreError(Exception):
    """The folder cannot be used; the text says why."""


class FileStore:
    """Keeps one source's record in a file of the host."""

    def __init__(self, folder: Path, name: str, *, clock: Callable[[], float] = boot_clock) -> None:
        """`name` tells sources apart: a digest of the whole definition, so that a changed secret finds no old token."""
        self._path = folder / f"{name}.json"
        self._lock_path = folder / f"{name}.lock"
        self._clock = clock
        self._record = Record()
        self._seen: tuple[int, ...] = ()  # what tells this version of the file from another
        self._looked_at = float("-inf")
        self._complained = ""
        self._alone: MemoryStore | None = None  # the file could not be used: for a while this process is alone
        self._alone_until = float("-inf")
        self._told_alone = False

    @property
    def is_shared(self) -> bool:
        return self._alone is None

    def load(self) -> Record:
        """The record as of at most 250 ms ago; read only where the file has changed since."""
        now = self._clock()
        if self._alone is not None and now >= self._alone_until:
            self._alone, self._seen, self._looked_at = None, (), float("-inf")
        if self._alone is not None:
            return self._alone.load()
        if now - self._looked_at >= LOOK_EVERY_S:
            self._looked_at = now
            self._read(now)
        return self._record

    def save(self, record: Record) -> None:
        """Write beside the file and rename: a reader finds the old or the new one, never half of one.

        Where that fails (no room, the folder gone) the record is kept in this process, which then fetches for itself.
        """
        if self._alone is None:
            try:
                self._write(record)
                return
            except OSError as error:
                self._alone = self._go_alone(error)
        self._alone.save(record)

    def _write(self, record: Record) -> None:
        descriptor, name = tempfile.mkstemp(dir=self._path.parent, prefix=self._path.stem, suffix=".new")  # 0600
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(dump_record(record))
                file.flush()  # before its length is noted
                seen = _version(os.fstat(file.fileno()))
            os.replace(name, self._path)
        except BaseException:
            with suppress(OSError):
                os.unlink(name)
            raise
        self._record, self._seen = record, seen
        self._told_alone = False

    @contextmanager
    def try_lock(self) -> Iterator[bool]:
        # A lock object for each try: one that is kept would let a second greenlet of this process in.
        lock = FileLock(self._lock_path, mode=0o600, blocking=False)
        try:
            if self._alone is None:
                self._path.parent.stat()  # filelock would make a folder that is gone, and not as ours must be
                lock.acquire()
        except Timeout:
            yield False
            return
        except OSError as error:
            self._alone = self._go_alone(error)
        if self._alone is not None:
            with self._alone.try_lock() as won:
                yield won
            return
        try:
            self._looked_at = float("-inf")  # whoever had the lock before may have saved just now
            yield True
        finally:
            lock.release()

    def _read(self, now: float) -> None:
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            if self._record != Record():
                self._record = Record()
            self._seen = ()
            return
        except OSError as error:  # a link, or all descriptors are in use: what was read before still counts
            self._complain(error.strerror or "not readable")
            return
        try:
            status = os.fstat(descriptor)
            if _version(status) == self._seen:
                return
            self._seen = _version(status)
            try:
                _check_ours(status)
                self._record = check_clock(load_record(os.read(descriptor, RECORD_MOST_BYTES + 1)), now)
            except UnreadableRecord as error:
                self._record = Record()
                self._complain(str(error))
        finally:
            os.close(descriptor)

    def _go_alone(self, error: OSError) -> MemoryStore:
        self._alone_until = self._clock() + ALONE_S
        if not self._told_alone:
            self._told_alone = True
            logger.error("token store: {}: {}; this worker goes on by itself", self._path.parent, error.strerror)
        return MemoryStore(self._record)

    def _complain(self, reason: str) -> None:
        if reason != self._complained:
            self._complained = reason
            logger.error("token store: {} is left aside: {}", self._path, reason)


def open_folder() -> Path:
    """The folder for the records, made where it is not there. Raises StoreError where it is not ours alone."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(runtime) / "llm-proxy" if runtime else Path("/dev/shm") / f"llm-proxy-{os.getuid()}"  # noqa: S108
    try:
        folder.mkdir(mode=0o700, parents=False, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise StoreError(f"{folder}: {error.strerror}") from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise StoreError(f"{folder}: must be a folder of this user with mode 0700")
    return folder


def _check_ours(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise UnreadableRecord("not a file of this user alone")
    if status.st_size > RECORD_MOST_BYTES:
        raise UnreadableRecord(f"longer than {RECORD_MOST_BYTES} bytes")


def _version(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_ino, status.st_mtime_ns, status.st_size)
