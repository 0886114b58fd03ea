"""A local model behind a small web service, as tutorials write one: POST /chat, events of `{"text", "message_id"}`.

It repeats the query. Events are written as sse-starlette does: CRLF, and pings as comments.
"""

import json
import socket
from collections.abc import Iterator
from typing import Any

from tests.support.api_server import ApiRequest, ApiServer, CutOff, send_json

ID = "741a630a"


class PlainSseServer(ApiServer):
    """`fault`: refused (422), missing (404 with status 200), busy (503 as a page), cut, or silent.

    `answers_json`: what is not streamed comes as JSON, and not as one event.
    """

    answers_json = False

    def answer(self, request: ApiRequest, sock: socket.socket) -> None:
        query = request.body.get("query")
        if request.path != "/chat" or not query:
            send_json(sock, {"detail": "Not Found"}, 404)
        elif self.fault == "refused":
            send_json(sock, {"detail": [{"loc": ["body", "temperature"], "msg": "Input should be at most 2"}]}, 422)
        elif self.fault == "missing":
            send_json(sock, {"code": 404, "msg": "no such model", "data": None})
        elif self.fault == "busy":
            send_json(sock, b"<html>busy</html>", 503, "text/html")
        elif not request.body.get("stream") and self.answers_json:
            send_json(sock, {"text": f"Echo: {query}", "message_id": ID})
        else:
            pieces = ["Echo: ", *query] if request.body.get("stream") else [f"Echo: {query}"]
            self.send_stream(sock, self._events(pieces, sock))

    def _events(self, pieces: list[str], sock: socket.socket) -> Iterator[bytes]:
        yield b": ping - 2026-11-22 04:00:00\r\n\r\n"
        for number, text in enumerate(pieces):
            if number == 2 and self.fault == "cut":
                raise CutOff
            if number == 2 and self.fault == "silent":
                self.stay_silent(sock)
            document: dict[str, Any] = {"text": text, "message_id": ID}
            yield b"data: " + json.dumps(document, ensure_ascii=False).encode() + b"\r\n\r\n"
