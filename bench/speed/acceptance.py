"""What our proxy must reach: each line of the table is a figure and the most that it may be."""

from collections.abc import Collection
from dataclasses import dataclass

from bench.speed.medians import Figures
from bench.speed.rows import FASTAPI, LITELLM, NGINX, OURS, PEERS


@dataclass(frozen=True)
class Criterion:
    """At most `most`, or `most` times what the peer `of` has."""

    what: str
    row: str
    figure: str
    most: float
    of: str = ""


@dataclass(frozen=True)
class Verdict:
    """A criterion with what was measured."""

    what: str
    measured: str
    required: str
    passed: bool


_CHAT, _FRAME = "CPU µs per small chat request", "CPU µs per frame, 1,000 streams of 10 frames/s"
CRITERIA = (
    *(
        Criterion(f"{_CHAT}, {callers}", row, "cpu_us_per_request", most, of)
        for row, callers in (("chat-32", "32 callers"), ("chat-1", "1 caller"))
        for most, of in ((0.6, FASTAPI), (1 / 20, LITELLM))
    ),
    *(
        Criterion(_FRAME, "streams-1000", "cpu_us_per_frame", most, of)
        for most, of in ((0.8, FASTAPI), (1 / 15, LITELLM), (3.5, NGINX))
    ),
    Criterion("added latency p50 at one caller, ms", "chat-1", "added.latency_ms.p50", 0.6),
    Criterion(
        "added time to the first byte p99, 500 streams over 5 s, ms", "first-byte", "added.first_byte_ms.p99", 25
    ),
    Criterion("3,000 streams of 10 frames/s: incomplete", "streams-3000", "incomplete", 0),
    Criterion("3,000 streams: memory for each, kB", "streams-3000", "memory_kb_per_stream", 50),
    Criterion("3,000 streams: frame delay p99, ms", "streams-3000", "frame_delay_ms.p99", 150),
    Criterion("5,000 streams of 1 frame/s: incomplete", "streams-5000", "incomplete", 0),
    Criterion("5,000 streams: share of a core", "streams-5000", "cpu_share", 0.5),
    *(
        Criterion("CPU µs per embeddings request, 64 x 1,024 floats", "embeddings", "cpu_us_per_request", most, of)
        for most, of in ((1.2, FASTAPI), (1 / 80, LITELLM))
    ),
    *(
        Criterion(f"streams whose bytes differ, {row}", row, "differing", 0)
        for row in ("streams-1000", "first-byte", "streams-3000", "streams-5000")
    ),
)


def judge(figures: Figures, rows: Collection[str], peers: Collection[str]) -> list[Verdict]:
    """A verdict on each criterion of the rows and peers that were asked for; one without a figure has failed."""
    left_out = set(PEERS) - set(peers)
    return [_judge(one, figures) for one in CRITERIA if one.row in rows and one.of not in left_out]


def _judge(one: Criterion, figures: Figures) -> Verdict:
    targets = figures.get(one.row, {})
    value = targets.get(OURS, {}).get(one.figure)
    base = targets.get(one.of, {}).get(one.figure) if one.of else 1.0
    limit = None if base is None else one.most * base
    passed = value is not None and limit is not None and value <= limit
    return Verdict(one.what, _text(value), _required(one, base, limit), passed)


def _required(one: Criterion, base: float | None, limit: float | None) -> str:
    if not one.of:
        return f"{one.most:g}"
    factor = f"{one.most:g} x" if one.most >= 0.5 else f"1/{1 / one.most:g} of"
    if base is None:
        return f"{factor} {one.of}'s, which was not measured"
    return f"{factor} {one.of}'s {_text(base)} = {_text(limit)}"


def _text(value: float | None) -> str:
    return "not measured" if value is None else f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
