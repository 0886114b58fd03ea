"""A wall clock that a test can set, for a proxy of its own: its processes see `time.time()`, `time.time_ns()` and
`datetime.now()` so many seconds off as a file says at that moment. Every other clock goes on.

The part that runs in those processes is a sitecustomize, which Python runs before anything else.
"""

from pathlib import Path

_VARIABLE = "SHIFTED_CLOCK_FILE"
_SITECUSTOMIZE = f"""
import datetime
import os
import time

_wall, _file = time.time, os.environ["{_VARIABLE}"]


def _now():
    with open(_file) as file:
        return _wall() + float(file.read())


class _Kind(type):
    def __instancecheck__(cls, instance):
        return isinstance(instance, _Real)


_Real = datetime.datetime


class _Datetime(_Real, metaclass=_Kind):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(_now(), tz)


time.time = _now
time.time_ns = lambda: int(_now() * 1e9)
datetime.datetime = _Datetime
"""


class ShiftedClock:
    """`environ` is for the processes that are to see it."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "shift"
        self.step_to(0)
        code = folder / "shifted_clock"
        code.mkdir()
        (code / "sitecustomize.py").write_text(_SITECUSTOMIZE)
        self.environ = {"PYTHONPATH": str(code), _VARIABLE: str(self._file)}

    def step_to(self, seconds: float) -> None:
        """Let the clock show so many seconds more than it is, from now on."""
        new = self._file.with_suffix(".new")
        new.write_text(str(seconds))
        new.rename(self._file)
