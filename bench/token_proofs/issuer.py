"""A token issuer on loopback that fails in every way that is asked for, and notes each call with its real instants.

Its tokens are the sandbox's: the same mint with the same key, so any sandbox upstream checks them against the real
clock. Unlike the sandbox's own issuer it can also close its port, speak TLS with a wrong certificate, and tell whether
whoever asked was still there when the answer was sent.
"""

import json
import select
import socket
import ssl
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from sandbox.tokens import TokenMint, signing_key

Mode = Literal["good", "refuse", "hang", "503", "429", "tls error", "raw"]
Outcome = Literal["running", "token", "failed", "left"]

_CALL_MOST_S = 30.0
_MAKE_CERTIFICATE = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=issuer "
    "-addext subjectAltName=IP:127.0.0.1"
)


@dataclass(slots=True)
class Call:
    """One connection to the issuer: when (`time.monotonic`), from which port, and how it ended."""

    began: float
    port: int
    cycle: int = 0  # the member of that name in the request, for those who count by it
    outcome: Outcome = "running"
    ended: float = 0.0


class Issuer:
    """Listens from its making on; `mode` and `delay_s` may be changed at any time."""

    def __init__(self, lifetime_s: float, *, delay_s: float = 0.0, tls_folder: Path | None = None) -> None:
        """`tls_folder`: speak TLS; the certificate to trust is in it as `good.pem`."""
        self.calls: list[Call] = []
        self.granted: list[str] = []
        self.delay_s = delay_s
        self.raw = b""  # what is answered in the mode of that name
        self._mint = TokenMint(signing_key(), lifetime_s)
        self._minting = threading.Lock()
        self._mode: Mode = "good"
        self._contexts = _contexts(tls_folder) if tls_folder is not None else None
        self._listener = self._listen(0)
        self.port = int(self._listener.getsockname()[1])
        scheme = "http" if tls_folder is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self.port}/token"

    @property
    def mode(self) -> Mode:
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        was, self._mode = self._mode, mode
        if mode == "refuse" and was != "refuse":
            self._shut()
        elif was == "refuse" and mode != "refuse":
            self._listener = self._listen(self.port)

    def tokens(self) -> list[Call]:
        """The calls that have brought a token."""
        return [call for call in self.calls if call.outcome == "token"]

    def running(self) -> list[Call]:
        return [call for call in self.calls if call.outcome == "running"]

    def __enter__(self) -> "Issuer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._shut()

    def _listen(self, port: int) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", port), backlog=256)
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        return listener

    def _shut(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, address = listener.accept()
            except OSError:
                return
            call = Call(time.monotonic(), int(address[1]))
            self.calls.append(call)
            threading.Thread(target=self._serve, args=(sock, call), daemon=True).start()

    def _serve(self, sock: socket.socket, call: Call) -> None:
        outcome: Outcome = "failed"
        try:
            sock.settimeout(_CALL_MOST_S)
            if self._contexts is not None:
                good, bad = self._contexts
                sock = (bad if self._mode == "tls error" else good).wrap_socket(sock, server_side=True)
            outcome = self._answer(sock, call)
        except OSError:
            pass
        finally:
            call.ended, call.outcome = time.monotonic(), outcome
            sock.close()

    def _answer(self, sock: socket.socket, call: Call) -> Outcome:
        call.cycle = int(_read_request(sock).get("cycle", 0))
        mode = self._mode
        if _leaves_within(sock, _CALL_MOST_S if mode == "hang" else self.delay_s):
            return "left" if mode == "good" else "failed"
        if mode == "hang":
            return "failed"
        failure = self.raw if mode == "raw" else _FAILURES.get(mode)
        sock.sendall(failure or self._grant())
        return "failed" if failure else "token"

    def _grant(self) -> bytes:
        with self._minting:
            token = self._mint.issue()
            self.granted.append(token)
        return reply("200 OK", {"access_token": token, "token_type": "Bearer", "expires_in": self._mint.lifetime_s})


def _read_request(sock: socket.socket) -> dict[str, Any]:
    data = b""
    while b"\r\n\r\n" not in data:
        data += _some(sock)
    head, _, body = data.partition(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    while len(body) < int(fields.get(b"content-length", b"0")):
        body += _some(sock)
    return dict(json.loads(body))


def _some(sock: socket.socket) -> bytes:
    data = sock.recv(65536)
    if not data:
        raise ConnectionError("the peer left")
    return data


def _leaves_within(sock: socket.socket, seconds: float) -> bool:
    """Wait so long; True as soon as the peer closes, which has nothing more to send."""
    return seconds > 0 and bool(select.select([sock], [], [], seconds)[0])


def reply(status: str, members: dict[str, Any], *fields: str) -> bytes:
    """The bytes of an answer; each of `fields` is a whole line."""
    body = json.dumps(members).encode()
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/json", f"Content-Length: {len(body)}", *fields]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body


def _contexts(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context with the certificate that is trusted, and one with another of the same name."""
    contexts = []
    for name in ("good", "bad"):
        certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
        command = [*_MAKE_CERTIFICATE.split(), "-keyout", str(key), "-out", str(certificate)]
        subprocess.run(command, check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        contexts.append(context)
    return contexts[0], contexts[1]


_FAILURES: dict[Mode, bytes] = {
    "503": reply("503 Service Unavailable", {"error": "temporarily_unavailable"}),
    "429": reply("429 Too Many Requests", {"error": "slow_down"}, "Retry-After: 1000000000"),
}
