"""How the cost of our proxy grows: with workers, with streams, and with their frame rate. Prints one table.

Run from the root: `python -m bench.scaling`, about four minutes. Upstream, load, meters and method are compare.py's.
"""

import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.speed.lab import Lab
from bench.speed.machine import many_descriptors
from bench.speed.measuring import measure, warm_up
from bench.speed.ours import ours
from bench.speed.rows import Row
from bench.speed.targets import Server

_WORKERS = (1, 2, 4)
_STREAMS = ((250, 10), (1000, 10), (2000, 10), (3000, 10), (1000, 1), (4000, 1))  # how many, frames a second of each
_STEADY_S = 8
_HEAD = "| workers | load | CPU µs each | share of a core | memory per stream, kB | frame delay p99, ms |"


def main() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    many_descriptors()
    print(_HEAD, "| ---: | --- | ---: | ---: | ---: | ---: |", sep="\n")
    with tempfile.TemporaryDirectory(prefix="bench-scaling-") as folder:
        lab = Lab(Path(folder))
        try:
            for workers, row in _rows():
                print(_line(workers, row, _measure(lab, workers, row)), flush=True)
        finally:
            lab.close()


def _rows() -> Iterator[tuple[int, Row]]:
    for workers in _WORKERS:
        yield workers, Row("", "small chat, 32 callers", "closed", {"callers": 32, "seconds": 5}, {})
    for count, rate in _STREAMS:
        arrive_s = max(2.0, count / 400)
        frames = round(rate * (arrive_s + _STEADY_S))
        options = {"count": count, "frames": frames, "per-second": rate, "arrive": arrive_s}
        yield 1, Row("", f"{count:,} streams of {rate} frames/s", "streams", options, {})


def _measure(lab: Lab, workers: int, row: Row) -> dict[str, Any]:
    server = Server(ours(workers), lab)
    try:
        warm_up(lab, server)
        return measure(lab, server, row, row.options)
    finally:
        server.stop()


def _line(workers: int, row: Row, figures: dict[str, Any]) -> str:
    cost = figures.get("cpu_us_per_request", figures.get("cpu_us_per_frame", "none"))
    late = figures.get("frame_delay_ms", {}).get("p99", "")
    memory = figures.get("memory_kb_per_stream", "")
    return f"| {workers} | {row.what} | {cost} | {figures.get('cpu_share', '')} | {memory} | {late} |"


if __name__ == "__main__":
    main()
