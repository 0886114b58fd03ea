"""An OpenAI-shaped upstream on loopback of a test's own: it records what came, and answers as a function says.

For what the sandbox cannot do: several upstreams with credentials of their own, and answers that depend on a body.
"""

import json
import select
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.support.loopback_server import LoopbackServer
from tests.support.scripted_upstream import receive_request

LIMIT_S = 10.0
STREAM = b'data: {"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


@dataclass(slots=True)
class Request:
    """One request, whole; `end` is None while it runs, and afterwards `answered` or `left`."""

    method: str
    path: str
    fields: dict[str, str]  # names in lower case
    body: bytes
    sock: socket.socket
    end: str | None = None

    @property
    def members(self) -> dict[str, Any]:
        return dict(json.loads(self.body))

    def wait(self, until: threading.Event) -> None:
        """Hold the answer back; BrokenPipeError as soon as the peer leaves."""
        for _ in range(int(LIMIT_S / 0.02)):
            if until.wait(0.02):
                return
            if select.select([self.sock], [], [], 0)[0] and not self.sock.recv(1, socket.MSG_PEEK):
                raise BrokenPipeError
        raise AssertionError(f"held for {LIMIT_S} s")


Answer = Callable[[Request], bytes]  # the whole answer, head and body; an empty one closes the connection


class RecordingUpstream(LoopbackServer):
    """Keeps connections. `answer` runs in the connection's thread, so it may wait."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.requests: list[Request] = []
        self.most_at_once = 0
        super().__init__()
        self.url = f"http://127.0.0.1:{self.port}/v1"

    def forget(self, answer: Answer) -> None:
        """For the next test."""
        with self._changed:
            self.answer = answer
            self.requests = []
            self.most_at_once = 0

    @property
    def running(self) -> int:
        return sum(request.end is None for request in self.requests)

    def wait_until(self, holds: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(holds, LIMIT_S), f"{len(self.requests)} came, {self.running} run"

    def _serve(self, sock: socket.socket) -> None:
        while (request := _receive(sock)) is not None:
            with self._changed:
                self.requests.append(request)
                self.most_at_once = max(self.most_at_once, self.running)
                answer = self.answer
                self._changed.notify_all()
            data = self._answer(request, answer)
            self._note_end(request, "answered")  # before it is sent: the next request may come at once
            try:
                sock.sendall(data)
            except OSError:
                self._note_end(request, "left")
                raise
            if b"connection: close" in data.lower() or not data:
                return

    def _answer(self, request: Request, answer: Answer) -> bytes:
        try:
            return answer(request)
        except BaseException:
            self._note_end(request, "left")
            raise

    def _note_end(self, request: Request, end: str) -> None:
        with self._changed:
            request.end = end
            self._changed.notify_all()


def answer_json(document: Any, status: int = 200, *fields: str) -> bytes:
    return answer_bytes(json.dumps(document).encode(), status, "Content-Type: application/json", *fields)


def answer_bytes(body: bytes, status: int = 200, *fields: str) -> bytes:
    lines = [f"HTTP/1.1 {status} Status", *fields, f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def answer_stream(frames: bytes = STREAM) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(frames), frames)


def answer_chat(request: Request, name: str) -> bytes:
    """A chat completion, as a stream where one was asked for; the text is the upstream's name."""
    if request.members.get("stream"):
        return answer_stream(STREAM.replace(b"Hi", name.encode()))
    message = {"role": "assistant", "content": name}
    return answer_json({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})


def _receive(sock: socket.socket) -> Request | None:
    received = receive_request(sock)
    if received is None:
        return None
    head, body = received
    start, *lines = head.decode("latin-1").split("\r\n")
    method, path, _ = start.split(" ")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    assert len(fields) == len(lines), "a field came twice"
    return Request(method, path, fields, body, sock)
