"""A token in a file that something else renews, such as Kubernetes' projected service account token."""

import math
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

from proxy.tokens.sources.base import Grant, Source, TokenFetchError
from proxy.tokens.sources.reply import TOKEN_MOST_CHARS, read_text_grant


class FileSource(Source):
    """Reads the file anew at each fetch and tells when it has changed since."""

    watch_s = 1.0

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        """`clock` is the wall clock, which the token's `exp` is compared with."""
        self._path = path
        self._clock = clock
        self._last_read: tuple[int, ...] | None = None

    def fetch(self) -> Grant:
        """Get the file's token. A JWT lives as its claims say, any other for ever: an upstream's 401 ends it."""
        return read_text_grant(self._read(), str(self._path), now=self._clock(), default_lifetime_s=math.inf)

    def has_changed(self) -> bool:
        """Whether the path leads to another file than the last read one, or to more or newer bytes; a missing file
        is no news, as it may be in the midst of being replaced."""
        found = self._look()
        return found is not None and found != self._last_read

    def _look(self) -> tuple[int, ...] | None:
        """What tells the file from others and from itself at other times; None where there is none."""
        try:
            status = os.stat(self._path)  # follows links: Kubernetes swaps one to a folder
        except OSError:
            return None
        return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size

    def _read(self) -> bytes:
        # First: what is written while we read is then a change, and what cannot be read is none until it is another.
        self._last_read = self._look()
        try:
            with open(self._path, "rb", opener=_open_without_waiting) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise TokenFetchError(f"{self._path}: not a regular file")
                return file.read(TOKEN_MOST_CHARS + len("\r\n") + 1)
        except OSError as error:
            raise TokenFetchError(f"{self._path}: cannot be read: {error.strerror or 'read error'}") from None


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a named pipe would wait for its writer
