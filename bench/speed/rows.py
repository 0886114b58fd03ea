"""The rows of the comparison: what load is put on whom, for how long. Options are those of load.py."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

Options: TypeAlias = Mapping[str, int | float | str]

DIRECT, OURS, NGINX, FASTAPI, LITELLM = NAMES = ("direct", "ours", "nginx", "fastapi", "litellm")
PEERS = (NGINX, FASTAPI, LITELLM)


@dataclass(frozen=True)
class Row:
    """One kind of load, put on each of the targets in turn."""

    name: str
    what: str
    command: str  # of load.py: closed or streams
    options: Options
    quick: Options  # what differs with --quick
    targets: tuple[str, ...] = NAMES
    lighter: Mapping[str, Options] = field(default_factory=dict)  # what differs for who could not carry the rest
    once: tuple[str, ...] = ()  # also these, for orientation, in the first run of a full bench
    fresh: bool = False  # on a new process, since its memory counts
    tls: bool = False

    def options_for(self, target: str, *, quick: bool) -> Options:
        return {**self.options, **(self.quick if quick else {}), **self.lighter.get(target, {})}


_SHORT: Options = {"seconds": 1.5, "warm-up": 0.5}
ROWS = (
    Row("chat-1", "small chat, 1 caller", "closed", {"callers": 1, "seconds": 4}, _SHORT),
    Row("chat-32", "small chat, 32 callers", "closed", {"callers": 32, "seconds": 4}, _SHORT),
    Row(
        "tls-32",
        "small chat, 32 callers, TLS to the upstream",
        "closed",
        {"callers": 32, "seconds": 4, "model": "small-tls"},
        _SHORT,
        targets=(OURS, *PEERS),  # the load itself speaks no TLS
        tls=True,
    ),
    Row(
        "body-1mb",
        "chat with 1 MB of messages, 4 callers",
        "closed",
        {"callers": 4, "seconds": 4, "prompt-bytes": 1_000_000},
        _SHORT,
    ),
    Row(
        "embeddings",
        "64 embeddings of 1,024 floats (0.6 MB), 4 callers",
        "closed",
        {"callers": 4, "seconds": 4, "model": "embed-64x1024"},
        _SHORT,
    ),
    Row(
        "streams-1000",
        "1,000 streams of 10 frames/s",
        "streams",
        {"count": 1000, "frames": 130, "per-second": 10, "arrive": 5},
        {"frames": 80, "arrive": 3},
        lighter={LITELLM: {"count": 100}},
        fresh=True,
    ),
    Row(
        "first-byte",
        "500 streams of 10 frames/s, arriving over 5 s",
        "streams",
        {"count": 500, "frames": 60, "per-second": 10, "arrive": 5},
        {"frames": 20},
        lighter={LITELLM: {"count": 50}},
    ),
    Row(
        "streams-3000",
        "3,000 streams of 10 frames/s for 60 s",
        "streams",
        {"count": 3000, "frames": 600, "per-second": 10, "arrive": 10},
        {"frames": 120, "arrive": 8},
        targets=(OURS,),
        once=(DIRECT, NGINX),
        fresh=True,
    ),
    Row(
        "streams-5000",
        "5,000 streams of 1 frame/s for 60 s",
        "streams",
        {"count": 5000, "frames": 60, "per-second": 1, "arrive": 10},
        {"frames": 14},
        targets=(OURS,),
        fresh=True,
    ),
)
