"""Draws the figures of a results file as SVG beside it and prints the paths.

Runs in a venv of its own that has matplotlib: `python -m bench.speed.charts bench/results/DATE-compare.json`.
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot  # the backend is chosen before

_NAMES = ("nginx", "ours", "fastapi", "litellm")
_COLOURS = {"ours": "#1f77b4", "nginx": "#8a8a8a", "fastapi": "#c9a227", "litellm": "#b5544d"}
# File name: title, then the bars' group, row and figure.
_CHARTS: dict[str, tuple[str, list[tuple[str, str, str]]]] = {
    "cpu-per-request": (
        "CPU per request, µs",
        [
            ("small chat,\n32 callers", "chat-32", "cpu_us_per_request"),
            ("the same with TLS\nto the upstream", "tls-32", "cpu_us_per_request"),
            ("chat of 1 MB", "body-1mb", "cpu_us_per_request"),
            ("64 embeddings,\n0.6 MB", "embeddings", "cpu_us_per_request"),
        ],
    ),
    "cpu-per-frame": (
        "CPU per frame, µs",
        [("1,000 streams of 10 frames/s (litellm: 100)", "streams-1000", "cpu_us_per_frame")],
    ),
    "memory": ("Memory per stream, kB", [("1,000 streams (litellm: 100)", "streams-1000", "memory_kb_per_stream")]),
    "latency": (
        "Added latency, ms",
        [
            ("1 caller, p50", "chat-1", "added.latency_ms.p50"),
            ("1 caller, p99", "chat-1", "added.latency_ms.p99"),
            ("32 callers, p50", "chat-32", "added.latency_ms.p50"),
            ("32 callers, p99", "chat-32", "added.latency_ms.p99"),
            ("first byte of 500 streams\n(litellm: 50), p99", "first-byte", "added.first_byte_ms.p99"),
        ],
    ),
}


def main() -> None:
    results = Path(sys.argv[1])
    document = json.loads(results.read_text())
    matplotlib.rcParams.update({"svg.hashsalt": "bench", "font.size": 9, "svg.fonttype": "none"})
    for name, (title, bars) in _CHARTS.items():
        wanted = [(label, document["medians"].get(row, {}), figure) for label, row, figure in bars]
        wanted = [(label, targets, figure) for label, targets, figure in wanted if _has_any(targets, figure)]
        if wanted:
            path = results.with_name(f"{results.stem}-{name}.svg")
            _draw(path, f"{title} (logarithmic), {document['date'][:10]}", wanted)
            print(path)


def _has_any(targets: dict[str, Any], figure: str) -> bool:
    return any(targets.get(name, {}).get(figure, 0) > 0 for name in _NAMES)


def _draw(path: Path, title: str, groups: list[tuple[str, dict[str, Any], str]]) -> None:
    """Groups of bars, one bar for each target; a figure of 0 or less has no place on a logarithmic scale."""
    figure, axes = pyplot.subplots(figsize=(1.5 + 1.6 * max(len(groups), 2), 3.6))
    width = 0.8 / len(_NAMES)
    for offset, name in enumerate(_NAMES):
        values = [targets.get(name, {}).get(key) or 0 for _, targets, key in groups]
        shown = [(place + offset * width, value) for place, value in enumerate(values) if value > 0]
        if shown:
            bars = axes.bar([x for x, _ in shown], [y for _, y in shown], width, label=name, color=_COLOURS[name])
            axes.bar_label(bars, [f"{y:,.3g}" if y < 1000 else f"{y:,.0f}" for _, y in shown], fontsize=7, padding=1)
    axes.set_yscale("log")
    axes.margins(y=0.15)
    axes.set_title(title, fontsize=10)
    axes.set_xticks([place + width * (len(_NAMES) - 1) / 2 for place in range(len(groups))])
    axes.set_xticklabels([label for label, _, _ in groups])
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
