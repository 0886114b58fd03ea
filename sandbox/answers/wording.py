"""The words of an answer, and what a request says about them. The same question always gets the same text."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

DEFAULT_FRAMES = 6
DEFAULT_INTERVAL_MS = 20
_FILLER = " And the sandbox goes on talking, since that is what it was asked to do."


class BodyError(ValueError):
    """A request body that cannot be answered; the text says why and becomes a 400."""


@dataclass(frozen=True)
class Pace:
    """How an answer is cut: content frames, the pause before each, characters in all (None: as it comes)."""

    frames: int
    interval_s: float
    chars: int | None


def read_pace(body: dict[str, Any]) -> Pace:
    """Read the sandbox_* members of a request."""
    chars = body.get("sandbox_answer_chars")
    return Pace(
        frames=int(read_number(body, "sandbox_frames", DEFAULT_FRAMES, 1, 1_000_000)),
        interval_s=read_number(body, "sandbox_interval_ms", DEFAULT_INTERVAL_MS, 0, 3_600_000) / 1000,
        chars=None if chars is None else int(read_number(body, "sandbox_answer_chars", 0, 0, 100_000_000)),
    )


def read_number(body: dict[str, Any], name: str, default: float, least: float, most: float) -> float:
    """Get a number out of a body, or the default where it is absent or null."""
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise BodyError(f"{name} must be a number from {least:g} to {most:g}")
    return value


def read_list(body: dict[str, Any], name: str) -> list[Any]:
    """Get a list out of a body, empty where it is absent or null."""
    value = body.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise BodyError(f"{name} must be a list")
    return value


def model_of(body: dict[str, Any]) -> str:
    """Get the model that a request names; any name is accepted, and none too."""
    model = body.get("model")
    return model if isinstance(model, str) else "sandbox-chat"


def last_user_text(messages: list[Any]) -> str:
    """Get the text of the last user message, its text parts joined; empty where there is none."""
    for message in reversed(messages):
        if isinstance(message, dict) and message.get("role") == "user":
            return text_of(message.get("content"))
    return ""


def text_of(content: Any) -> str:
    """Get the text of a message's content: a string, or a list of parts of which some have text."""
    if isinstance(content, list):
        return " ".join(part["text"] for part in content if isinstance(part, dict) and _has_text(part))
    return content if isinstance(content, str) else ""


def _has_text(part: dict[str, Any]) -> bool:
    return isinstance(part.get("text"), str)


def compose(question: str, pace: Pace, choice: int = 0) -> str:
    """Write the answer to a question: as long as the pace says, else long enough for its frames."""
    text = f"You said: {question[:200]}" + (f" (choice {choice})" if choice else "")
    size = max(len(text), pace.frames) if pace.chars is None else pace.chars
    filler = _FILLER * math.ceil((size - len(text)) / len(_FILLER))
    return (text + filler)[:size]


def split(text: str, count: int) -> Iterator[str]:
    """Cut a text into that many pieces of almost the same length; some are empty where it is too short."""
    for index in range(count):
        yield text[index * len(text) // count : (index + 1) * len(text) // count]


def count_model_tokens(text: str) -> int:
    """Guess how many model tokens a text has: four characters each, at least one."""
    return max(1, len(text) // 4)
