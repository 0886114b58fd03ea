"""The few figures that stand for many."""

from collections.abc import Sequence


def share(values: Sequence[float], part: float) -> float:
    """The value below which that part of the values lies: 0.99 for p99; 0 where there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else 0.0


def spread_ms(values_ns: Sequence[int]) -> dict[str, float]:
    """p50, p99 and the most, in milliseconds."""
    ordered = sorted(values_ns)
    return {
        "p50": round(share(ordered, 0.5) / 1e6, 4),
        "p99": round(share(ordered, 0.99) / 1e6, 4),
        "max": round(share(ordered, 1.0) / 1e6, 4),
    }
