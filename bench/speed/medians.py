"""From the figures of several runs to one figure each: the median, but for faults the worst."""

import statistics
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from bench.speed.rows import DIRECT, OURS, PEERS

Flat: TypeAlias = dict[str, float]
Runs: TypeAlias = list[dict[str, dict[str, dict[str, Any]]]]  # for each run: row → target → figures
Figures: TypeAlias = dict[str, dict[str, Flat]]  # row → target → figures

_FAULTS = ("incomplete", "failures", "differing")
_COMPARED = ("cpu_us_per_request", "cpu_us_per_frame")
_ADDED = ("latency_ms.p50", "latency_ms.p99", "first_byte_ms.p50", "first_byte_ms.p99")


def medians(runs: Runs) -> Figures:
    """Row → target → figure, nested ones by names such as `latency_ms.p50`.

    `added.NAME` is the difference to the direct load of the same run, and `to_PEER.NAME` the ratio of ours to a peer's:
    the machine's speed drifts from run to run. A target that could not be measured in a run
    counts with its other runs.
    """
    found: dict[str, dict[str, list[Flat]]] = {}
    for run in runs:
        for row, targets in run.items():
            flat = {name: _flat(figures) for name, figures in targets.items()}
            for name, figures in flat.items():
                more = {} if name == DIRECT else _added(figures, flat.get(DIRECT, {}))
                if name == OURS:
                    more |= _ratios(figures, flat)
                found.setdefault(row, {}).setdefault(name, []).append(figures | more)
    return {row: {name: _middle(many) for name, many in targets.items()} for row, targets in found.items()}


def _middle(many: list[Flat]) -> Flat:
    names: Iterable[str] = dict.fromkeys(name for figures in many for name in figures)
    values = {name: [figures[name] for figures in many if name in figures] for name in names}
    return {name: max(some) if name in _FAULTS else statistics.median(some) for name, some in values.items()}


def _added(figures: Flat, direct: Flat) -> Flat:
    return {f"added.{name}": figures[name] - direct[name] for name in _ADDED if name in figures and name in direct}


def _ratios(figures: Flat, targets: Mapping[str, Flat]) -> Flat:
    return {
        f"to_{peer}.{name}": figures[name] / targets[peer][name]
        for peer in PEERS
        for name in _COMPARED
        if name in figures and targets.get(peer, {}).get(name)
    }


def _flat(figures: Mapping[str, Any], prefix: str = "") -> Flat:
    flat: Flat = {}
    for name, value in figures.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        elif isinstance(value, int | float):
            flat[prefix + name] = value
    return flat
