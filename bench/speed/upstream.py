"""The upstream of the bench: a process with one epoll loop that can send 30,000 frames a second.

It answers by the model's name (answers.py), gives out tokens at `POST /token` and refuses (401) what bears neither a
live one of these nor the key of the peers. `GET /counters` tells what came; `GET /hashes/RUN` gives `[CRC-32, bytes,
whole]` of each stream of that run and forgets them. By hand: `python -m bench.speed.upstream --port 5100`.
"""

import functools
import signal
import ssl
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import click

from bench.speed.answers import Frames, completion, embeddings, json_answer, shape_of
from bench.speed.connections import Connection, Server
from bench.speed.machine import many_descriptors, pin
from bench.speed.requests import IDENTITY, IDENTITY_LENGTH, PEER_KEY
from bench.speed.streams import Schedule, Stream

TOKEN_LIFE_S = 300
_REFUSED = json_answer(
    {"error": {"message": "No such credential.", "type": "invalid_request_error"}}, "401 Unauthorized"
)
_UNKNOWN = json_answer({"error": {"message": "No such route."}}, "404 Not Found")
_MODELS = json_answer(
    {"object": "list", "data": [{"id": "small", "object": "model", "created": 1, "owned_by": "bench"}]}
)


@click.command()
@click.option("--host", default="127.0.0.1")
@click.option("--port", type=int, required=True)
@click.option("--tls-port", type=int)
@click.option("--certificate", type=click.Path(path_type=Path), help="PEM with key and certificate, for --tls-port.")
@click.option("--cpu", type=int, help="Stay on this CPU.")
def main(host: str, port: int, tls_port: int | None, certificate: Path | None, cpu: int | None) -> None:
    """Serve until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    pin(cpu)
    many_descriptors()
    upstream = Upstream()
    upstream.server.listen(host, port)
    if tls_port is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(str(certificate))
        upstream.server.listen(host, tls_port, context)
    upstream.serve()


class Upstream:
    """Routes, tokens and streams."""

    def __init__(self) -> None:
        self.server = Server(self._on_data)
        self._schedule = Schedule()
        self._tokens: dict[bytes, float] = {PEER_KEY.encode(): float("inf")}
        self._counts: Counter[str] = Counter()
        self._streams: dict[str, Stream] = {}

    def serve(self) -> None:
        while True:
            self.server.poll(0.001 if self._schedule.open else 1.0)
            self._schedule.run()

    def _on_data(self, connection: Connection) -> None:
        """Answer the request if all of it is here. One at a time: no proxy sends a second before the answer."""
        received = connection.received  # looked at in its place: a copy of a megabyte costs more than all the rest
        end = received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(received[:end])
        connection.wanted = end + 4 + int(_field(head, b"content-length") or 0)
        if len(received) < connection.wanted:
            return
        model, identity = _model_of(received), _identity_of(received)
        del received[: connection.wanted]
        connection.wanted = 1
        self._answer(connection, head, model, identity)

    def _answer(self, connection: Connection, head: bytes, model: str, identity: str) -> None:
        route = " ".join(head.decode("latin-1").split(maxsplit=2)[:2])
        if route.startswith("POST /v1/"):
            token = _field(head, b"authorization").removeprefix(b"Bearer ")
            self._ask(connection, token, model, identity)
        elif route == "POST /token":
            connection.write(self._issue())
        elif route == "GET /counters":
            connection.write(json_answer(self._counters()))
        elif route.startswith("GET /hashes/"):
            connection.write(json_answer(self._hashes(route.removeprefix("GET /hashes/"))))
        else:
            connection.write(_MODELS if route == "GET /v1/models" else _UNKNOWN)

    def _ask(self, connection: Connection, token: bytes, model: str, identity: str) -> None:
        if self._tokens.get(token, 0.0) < time.monotonic():
            self._counts["refused"] += 1
            connection.write(_REFUSED)
            return
        self._counts["requests"] += 1
        self._counts["peer_key" if token == PEER_KEY.encode() else "token"] += 1
        if model.startswith("stream-"):
            self._stream(connection, model, identity)
        else:
            connection.write(_whole_answer(model))

    def _stream(self, connection: Connection, model: str, identity: str) -> None:
        _, count, per_second = shape_of(model)
        # What comes while the stream runs is read after it.
        stream = Stream(
            identity, Frames(model, identity), count, per_second, connection.write, lambda: self._on_data(connection)
        )
        if identity:
            self._streams[identity] = stream
        self._schedule.begin(stream)

    def _issue(self) -> bytes:
        self._counts["tokens_issued"] += 1
        token = f"bench-token-{self._counts['tokens_issued']}"
        self._tokens[token.encode()] = time.monotonic() + TOKEN_LIFE_S
        return json_answer({"access_token": token, "token_type": "Bearer", "expires_in": TOKEN_LIFE_S})

    def _counters(self) -> dict[str, Any]:
        """The worst delay of a frame by this process since the last time that it was asked, beside the counts."""
        late_ns, self._schedule.late_ns = self._schedule.late_ns, 0
        return {
            **self._counts,
            "frames": self._schedule.frames,
            "open_streams": self._schedule.open,
            "connections": self.server.open,
            "late_ms": late_ns / 1e6,
        }

    def _hashes(self, run: str) -> dict[str, tuple[int, int, bool]]:
        names = [name for name in self._streams if name.startswith(run)]
        streams = [self._streams.pop(name) for name in names]
        return {stream.identity: (stream.crc, stream.size, stream.complete) for stream in streams}


@functools.cache
def _whole_answer(model: str) -> bytes:
    kind, texts, floats = shape_of(model)
    return embeddings(model, texts, int(floats)) if kind == "embed" else completion(model)


def _field(head: bytes, name: bytes) -> bytes:
    at = head.lower().find(b"\r\n%b:" % name)
    line, _, _ = head[at + 2 :].partition(b"\r\n")
    return line[len(name) + 1 :].strip() if at >= 0 else b""


def _model_of(request: bytearray) -> str:
    """The text behind the first `"model":`; the texts of the load hold no such thing."""
    at = request.find(b'"model"')
    return request[at + 7 : at + 120].split(b'"', 2)[1].decode() if at >= 0 else ""


def _identity_of(request: bytearray) -> str:
    at = request.find(IDENTITY)
    begin = at + len(IDENTITY)
    return request[begin : begin + IDENTITY_LENGTH].decode() if at >= 0 else ""


if __name__ == "__main__":
    main()
