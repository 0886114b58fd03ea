"""The command line: read the options, listen, say where, serve until told to stop. `__main__` calls it."""

import argparse
import ipaddress
import json
import os
import signal
import sys

import gevent
from gevent.event import Event
from gevent.socket import wait_read

from sandbox.app import create_app
from sandbox.journal import Journal
from sandbox.server import SandboxServer
from sandbox.tokens import TokenMint, signing_key

# gunicorn's master stops for good when any child of its ends with 3, so failures here end with 1.
FAILED = 1


def main(argv: list[str] | None = None) -> int:
    """Serve until SIGTERM, SIGINT or (if asked) the end of stdin: 0, or 1 if it cannot listen."""
    options = _parse(argv)
    try:
        server = _listen(options.bind, options.token_lifetime_s, options.single_active)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        print(f"sandbox: cannot listen on {options.bind}: {reason}", file=sys.stderr)
        return FAILED
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, stop.set)
    if options.exit_with_stdin:
        gevent.spawn(_set_at_end_of_stdin, stop)
    print(json.dumps({"url": server.url}), flush=True)
    stop.wait()
    server.stop(timeout=0)
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m sandbox", description="A toy token issuer and LLM upstream.")
    parser.add_argument("--bind", default="127.0.0.1:0", help="loopback address and port; 0 takes a free one")
    parser.add_argument("--token-lifetime-s", type=float, default=300.0, help="how long a token is good")
    parser.add_argument("--single-active", action="store_true", help="a new token ends all those before it")
    parser.add_argument("--exit-with-stdin", action="store_true", help="stop when stdin ends")
    return parser.parse_args(argv)


def _listen(bind: str, token_lifetime_s: float, single_active: bool) -> SandboxServer:
    address = parse_loopback(bind)
    journal = Journal()
    app = create_app(journal, TokenMint(signing_key(), token_lifetime_s, single_active=single_active))
    server = SandboxServer(address, app, journal)
    server.start()
    return server


def parse_loopback(bind: str) -> tuple[str, int]:
    """Read "HOST:PORT" as an address; ValueError unless the host is loopback ("localhost" is 127.0.0.1)."""
    host, colon, port = bind.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("expected HOST:PORT")
    if host == "localhost":
        host = "127.0.0.1"
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise ValueError("only loopback addresses are accepted")
    return host, int(port)


def _set_at_end_of_stdin(stop: Event) -> None:
    # The parent holds the other end of the pipe; the kernel closes it even when the parent is killed.
    stdin = sys.stdin.fileno()
    while True:
        wait_read(stdin)
        if not os.read(stdin, 4096):
            stop.set()
            return
