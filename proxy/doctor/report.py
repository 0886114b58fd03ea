"""What the operator reads: one line a step, its state first, and whether anything failed. Knows no step by itself."""

from collections.abc import Callable
from typing import Literal

from loguru import logger

from proxy.observability.logging import redact

State = Literal["ok", "FAIL", "warn", "skip"]


class Report:
    """Writes each line as it comes, so that a step that takes long is seen to be waited for."""

    def __init__(self, echo: Callable[[str], object]) -> None:
        self._echo = echo
        self._begun = False
        self.counts: dict[State, int] = {"ok": 0, "FAIL": 0, "warn": 0, "skip": 0}

    @property
    def is_good(self) -> bool:
        return self.counts["FAIL"] == 0

    def heading(self, text: str) -> None:
        """Begin the steps of one source or upstream."""
        if self._begun:
            self._echo("")
        self._begun = True
        self._echo(text)

    def ok(self, step: str, text: str) -> None:
        self._line("ok", step, text)

    def fail(self, step: str, text: str) -> None:
        self._line("FAIL", step, text)

    def warn(self, step: str, text: str) -> None:
        self._line("warn", step, text)

    def skip(self, step: str, text: str) -> None:
        self._line("skip", step, text)

    def _line(self, state: State, step: str, text: str) -> None:
        self.counts[state] += 1
        self._echo(f"{state:<4}  {step}: {text}")


def take_over_log(tell: Callable[[str], None]) -> None:
    """Let the log's warnings become lines among the others, and drop the rest. Changes the whole process."""
    logger.remove()
    logger.add(lambda message: tell(redact(message.record["message"])), level="WARNING", format="")


def in_words(seconds: float) -> str:
    """A length of time, rounded to what an operator wants to know: 0.25 s, 85 s, 12 min, 5 h, 30 days."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    if seconds < 600:
        return f"{seconds:.0f} s"
    for unit, length_s in (("min", 60), ("h", 3600)):
        if seconds < 100 * length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{seconds / 86400:.0f} days"


def in_milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms"
