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


_CHAT, _FRAME = "CPU µs per small chat request, 32 callers", "CPU µs per frame, 1,000 streams of 10 frames/s"
CRITERIA = (
    *(Criterion(_CHAT, "chat-32", "cpu_us_per_request", most, of) for most, of in ((0.6, FASTAPI), (1 / 20, LITELLM))),
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
    ours = figures.get(one.row, {}).get(OURS, {})
    value = ours.get(f"to_{one.of}.{one.figure}" if one.of else one.figure)
    passed = value is not None and value <= one.most
    if not one.of:
        return Verdict(one.what, _text(value), f"{one.most:g}", passed)
    measured = f"{_text(value)} x {one.of}'s ({_text(ours.get(one.figure))})"
    return Verdict(one.what, measured, f"{one.most:.3g} x {one.of}'s", passed)


def _text(value: float | None) -> str:
    return "not measured" if value is None else f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"
