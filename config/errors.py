"""What can be wrong with a config file, and how a fault and its place are written down.

A config file may hold secrets anywhere, also where none belongs. So no text here or in a caller repeats a
value of the file: it says what is expected, and the path says where.
"""

import json
import re
from collections.abc import Iterable

# Where a value stands in the file: keys and list indices from the top.
Location = tuple[str | int, ...]

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+")


class ConfigError(Exception):
    """The settings can't be used; `faults` holds every reason found, `str()` gives them one per line."""

    def __init__(self, faults: Iterable[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(self.faults))


class Fault(ValueError):
    """One value is not as expected. Its text is written in this package, so it is safe to show."""


def describe(location: Location, text: str) -> str:
    """Fault as one line: `upstreams[0].timeouts.connect_s: must be above 0`."""
    path = "".join(_step(part) for part in location).removeprefix(".")
    return f"{path or 'the file'}: {text}"


def _step(part: str | int) -> str:
    if isinstance(part, int):
        return f"[{part}]"
    # A key may hold dots or line breaks; quoting keeps the path unambiguous and the fault on one line.
    return f".{part}" if _PLAIN_KEY.fullmatch(part) else f"[{json.dumps(part)}]"
