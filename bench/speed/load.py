"""The load of the bench: a process with one epoll loop, cheap enough to read 30,000 frames a second. Prints JSON.

    python -m bench.speed.load closed --port 5002 --callers 32 --seconds 5 --pid MASTER
    python -m bench.speed.load streams --port 5002 --count 1000 --frames 200 --per-second 10 --arrive 5 --pid MASTER

`--pid` is the process to meter, with its children. Started by compare.py, or by hand.
"""

import http.client
import json
import os
import resource
import secrets
import sys
from typing import Any

import click

from bench.speed.closed_loop import ClosedLoop
from bench.speed.machine import many_descriptors, pin
from bench.speed.meter import Meter
from bench.speed.requests import CHAT_PATH, EMBEDDINGS_PATH, PEER_KEY, Ask, chat, embedding
from bench.speed.stream_load import StreamLoad


@click.group()
@click.option("--cpu", type=int, help="Stay on this CPU.")
def main(cpu: int | None) -> None:
    """Put load on a server."""
    pin(cpu)
    many_descriptors()


def _common(command: Any) -> Any:
    for option in (
        click.option("--host", default="127.0.0.1"),
        click.option("--port", type=int, required=True),
        click.option("--prefix", default="", help="In front of /v1."),
        click.option("--key", default=PEER_KEY, help="The bearer token to send."),
        click.option("--pid", type=int, help="The process to meter."),
    ):
        command = option(command)
    return command


@main.command()
@_common
@click.option("--model", default="small", help="small, small-tls or embed-64x1024.")
@click.option("--callers", default=1)
@click.option("--seconds", default=5.0)
@click.option("--warm-up", default=1.0)
@click.option("--prompt-bytes", default=0, help="Size of the chat's messages.")
def closed(
    host: str, port: int, prefix: str, key: str, pid: int | None,
    model: str, callers: int, seconds: float, warm_up: float, prompt_bytes: int,
) -> None:  # fmt: skip
    """Callers that ask again as soon as they are answered."""
    ask = Ask(host, port, prefix + (EMBEDDINGS_PATH if model.startswith("embed-") else CHAT_PATH), key)
    if model.startswith("embed-"):
        request = embedding(ask, model, texts=int(model.removeprefix("embed-").split("x")[0]))
    else:
        request = chat(ask, model, prompt_bytes=prompt_bytes)
    _print(ClosedLoop(ask, request, callers).run(warm_up, seconds, Meter(pid)))


@main.command()
@_common
@click.option("--count", default=1000, help="Number of streams.")
@click.option("--frames", default=200, help="Of each stream.")
@click.option("--per-second", default=10.0, help="Frames of each stream.")
@click.option("--arrive", default=5.0, help="Seconds over which the streams begin.")
@click.option("--upstream-port", type=int, help="Where to ask for the hashes; without it none are compared.")
def streams(
    host: str, port: int, prefix: str, key: str, pid: int | None,
    count: int, frames: int, per_second: float, arrive: float, upstream_port: int | None,
) -> None:  # fmt: skip
    """Streams that arrive evenly and are read to their end."""
    run = secrets.token_hex(4)
    model = f"stream-{frames}x{per_second:g}"
    load = StreamLoad(Ask(host, port, prefix + CHAT_PATH, key), model, count, arrive, run)
    figures = load.run(frames / per_second, Meter(pid))
    if upstream_port is not None:
        figures |= _compare(load, upstream_port, run)
    _print(figures)


def _compare(load: StreamLoad, port: int, run: str) -> dict[str, Any]:
    """How many complete streams differ from what the upstream sent, and how late the upstream itself was."""
    sent = _fetch(port, f"/hashes/{run}")
    complete = load.complete()
    differing = [
        identity
        for identity, (crc, size) in load.checksums().items()
        if identity in complete and sent.get(identity, [])[:2] != [crc, size]
    ]
    return {"differing": len(differing), "upstream_late_ms": _fetch(port, "/counters")["late_ms"]}


def _fetch(port: int, path: str) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", path)
    return json.loads(connection.getresponse().read())


def _print(figures: dict[str, Any]) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    figures["load_cpu_s"] = round(used.ru_utime + used.ru_stime, 3)
    json.dump(figures, sys.stdout, indent=1)
    print(flush=True)
    os._exit(0)  # no time for the objects of thousands of streams


if __name__ == "__main__":
    main()
