"""Puts the load on a server and brings its figures back. The load is a process of its own (load.py)."""

import itertools
import json
import sys
from typing import Any

from bench.speed.lab import Lab
from bench.speed.processes import Child, NotStarted
from bench.speed.rows import Options, Row
from bench.speed.targets import Server

_WITHIN_S = 300.0
_numbers = itertools.count()


def measure(lab: Lab, server: Server, row: Row, options: Options) -> dict[str, Any]:
    """The JSON that the load printed. Raises NotStarted where it did not come to an end."""
    prefix = {"prefix": server.target.tls_prefix} if row.tls else {}
    if row.command == "streams":
        options = {**options, "upstream-port": lab.upstream_port}
    return _load(lab, server, row.command, {**options, **prefix})


def warm_up(lab: Lab, server: Server) -> None:
    """Have everything imported, compiled and allocated that the first requests need."""
    if server.pid is not None:
        _load(lab, server, "closed", {"callers": 8, "seconds": 0.5, "warm-up": 0.5})
        _load(lab, server, "streams", {"count": 40, "frames": 5, "per-second": 10, "arrive": 0.5})


def _load(lab: Lab, server: Server, command: str, options: Options) -> dict[str, Any]:
    said = lab.folder / f"load-{next(_numbers)}.txt"
    whom: Options = {"port": server.port, "key": server.target.key, **({"pid": server.pid} if server.pid else {})}
    argv = [sys.executable, "-m", "bench.speed.load", command]
    argv += [word for name, value in {**whom, **options}.items() for word in (f"--{name}", str(value))]
    child = Child(argv, said, lab.load_cpu)
    try:
        status = child.wait(_WITHIN_S)
    finally:
        child.stop()
    text = said.read_text()
    try:
        return dict(json.loads(text))
    except ValueError as error:
        raise NotStarted(f"the load ended with {status}: {text[-1000:]}") from error
