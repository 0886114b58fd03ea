"""A secret given as text or kept in a file. Its value shows nowhere unless `reveal()` is called.

Repr, str and format name the reference only; pickling is refused, so no secret reaches a cache or a process.
"""

from hashlib import sha256
from pathlib import Path
from typing import NoReturn

from config.errors import ConfigError


class SecretRef:
    """Reference to a secret: `SecretRef(text="...")` or `SecretRef(path=Path("..."))`."""

    __slots__ = ("_last", "_path", "_text", "_version")

    def __init__(self, *, text: str | None = None, path: Path | None = None) -> None:
        if (text is None) == (path is None):
            raise TypeError("SecretRef takes either text or path")
        self._text = text
        self._path = path
        self._last: str | None = None
        self._version: str | None = None

    @property
    def path(self) -> Path | None:
        """The file that holds the secret; None where it was given as text."""
        return self._path

    @property
    def version(self) -> str:
        """A digest of the secret as it was first read, with the config: the same in all processes that share that.

        Raises ConfigError as `reveal` does.
        """
        if self._version is None:
            self.reveal()
        return str(self._version)

    def reveal(self) -> str:
        """The secret itself. A file is read anew at each call, so a rotated secret counts without a restart.

        One line break at the end of a file is left out: editors and `echo` add it. A file that cannot be read any
        more, or is empty, as in the midst of its rotation, gives what it gave before.
        Raises ConfigError, which names the path, when it never gave anything.
        """
        try:
            secret = self._read()
        except ConfigError:
            if self._last is None:
                raise
            return self._last
        self._last = secret
        if self._version is None:
            self._version = sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
        return secret

    def _read(self) -> str:
        if self._path is None:
            return self._text or ""
        try:
            secret = self._path.read_text(encoding="utf-8").removesuffix("\n")
        except OSError as error:
            raise self._unreadable(error.strerror or "read error") from error
        except ValueError:
            # Not chained: a UnicodeDecodeError carries the bytes of the secret.
            raise self._unreadable("not UTF-8 text") from None
        if not secret:
            raise self._unreadable("it is empty")
        return secret

    def _unreadable(self, reason: str) -> ConfigError:
        return ConfigError([f"{self._path}: no secret can be read from this file: {reason}"])

    def __repr__(self) -> str:
        return "SecretRef(****)" if self._path is None else f"SecretRef(file={self._path})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SecretRef):
            return NotImplemented
        return (self._text, self._path) == (other._text, other._path)

    def __hash__(self) -> int:
        return hash((self._text, self._path))

    def __reduce__(self) -> NoReturn:
        raise TypeError("a SecretRef is not pickled: its value must not leave the process")
