"""DashScope's native API on loopback: text generation, whole and streamed, and text embeddings.

It repeats the last message. Events look as the service writes them: no blank behind the colons, an id, a comment with a
status, and "null" as a text until there is a reason to end.
"""

import json
import re
import socket
from collections.abc import Iterator
from typing import Any

from tests.support.api_server import ApiRequest, ApiServer, CutOff, send_json

GENERATION = "/api/v1/services/aigc/text-generation/generation"
TEXT_EMBEDDING = "/api/v1/services/embeddings/text-embedding/text-embedding"
TEXTS_MOST = 10
ARGUMENTS = '{"city": "Bern"}'
ID = "0d2c5ab0-request"
INVALID_KEY = {"code": "InvalidApiKey", "message": "Invalid API-key provided.", "request_id": ID}
THROTTLED = {"code": "Throttling.RateQuota", "message": "Requests rate limit exceeded.", "request_id": ID}
INSPECTED = {"code": "DataInspectionFailed", "message": "Output data may be inappropriate.", "request_id": ID}


class DashScopeServer(ApiServer):
    """`fault`: throttled, throttled stream, inspected (in a stream), cut, silent, or nonsense."""

    @property
    def base_url(self) -> str:
        return self.url + "/api/v1"

    def answer(self, request: ApiRequest, sock: socket.socket) -> None:
        is_stream = request.fields.get("x-dashscope-sse") == "enable"
        if not self.token_is_good(request):
            send_json(sock, INVALID_KEY, 401)
        elif self.fault == "throttled":
            send_json(sock, THROTTLED, 429)
        elif self.fault == "throttled stream":
            event = b"id:1\nevent:error\n:HTTP_STATUS/429\ndata:" + json.dumps(THROTTLED).encode() + b"\n\n"
            send_json(sock, event, 429, "text/event-stream;charset=UTF-8")
        elif self.fault == "nonsense":
            send_json(sock, {"output": {"odd": "s3cret-mark"}})
        elif request.path == TEXT_EMBEDDING:
            self._embed(request.body, sock)
        elif request.path != GENERATION or (fault := _fault_of(request.body)):
            fault = fault if request.path == GENERATION else "url error, please check url!"
            send_json(sock, {"code": "InvalidParameter", "message": fault, "request_id": ID}, 400)
        elif is_stream:
            self.send_stream(sock, self._events(request.body, sock))
        else:
            send_json(sock, _whole(request.body))

    def _embed(self, body: dict[str, Any], sock: socket.socket) -> None:
        texts = body["input"]["texts"]
        if len(texts) > TEXTS_MOST:
            text = f"batch size is invalid, it should not be larger than {TEXTS_MOST}.: input.contents"
            send_json(sock, {"code": "InvalidParameter", "message": text, "request_id": ID}, 400)
            return
        length = body.get("parameters", {}).get("dimension", 4)
        items = [{"text_index": at, "embedding": vector_of(text, length)} for at, text in enumerate(texts)]
        output = {"embeddings": items[::-1]}  # the index says which is whose
        send_json(sock, {"output": output, "usage": {"total_tokens": len(texts)}, "request_id": ID})

    def _events(self, body: dict[str, Any], sock: socket.socket) -> Iterator[bytes]:
        for number, document in enumerate(_pieces(body), 1):
            if number == 3 and self.fault == "inspected":
                yield f"id:{number}\nevent:error\n:HTTP_STATUS/400\ndata:{json.dumps(INSPECTED)}\n\n".encode()
                return
            if number == 3 and self.fault == "cut":
                raise CutOff
            if number == 3 and self.fault == "silent":
                self.stay_silent(sock)
            text = json.dumps({**document, "request_id": ID}, ensure_ascii=False)
            yield f"id:{number}\nevent:result\n:HTTP_STATUS/200\ndata:{text}\n\n".encode()


def vector_of(text: str, length: int = 4) -> list[float]:
    """Floats that float32 holds exactly."""
    return [len(text) + at / 4 for at in range(length)]


def _fault_of(body: dict[str, Any]) -> str | None:
    messages = body.get("input", {}).get("messages")
    if body.get("parameters", {}).get("result_format") != "message":
        return "the tests ask for messages"
    if not messages or any(not isinstance(message.get("content"), str) for message in messages):
        return "Role and content must be texts: input.messages"
    if any(message["role"] not in ("system", "user", "assistant", "tool") for message in messages):
        return "Role must be in [user, assistant, system, tool]: input.messages"
    return None


def _words(body: dict[str, Any]) -> tuple[list[str], str]:
    """The pieces of the answer, and why it ends."""
    words = re.split(r"(?= )", "Echo: " + body["input"]["messages"][-1]["content"])
    most = body["parameters"].get("max_tokens", len(words))
    return words[:most], "stop" if len(words) <= most else "length"


def _usage(output_tokens: int) -> dict[str, Any]:
    details = {"reasoning_tokens": 1}
    counts = {"input_tokens": 7, "output_tokens": output_tokens, "total_tokens": 7 + output_tokens}
    return {**counts, "output_tokens_details": details, "prompt_tokens_details": {"cached_tokens": 0}}


def _call(arguments: str, *, index: int = 0, is_first: bool = True) -> dict[str, Any]:
    function = {"name": "weather" if is_first else "", "arguments": arguments}
    return {"index": index, "id": f"call_{index}" if is_first else "", "type": "function", "function": function}


def _whole(body: dict[str, Any]) -> dict[str, Any]:
    if body["parameters"].get("tools"):
        message = {"role": "assistant", "content": "", "tool_calls": [_call(ARGUMENTS), _call("{}", index=1)]}
        choices = [{"finish_reason": "tool_calls", "message": message}]
        return {"output": {"choices": choices}, "usage": _usage(5), "request_id": ID}
    words, reason = _words(body)
    message = {"role": "assistant", "content": "".join(words)}
    if body["parameters"].get("enable_thinking"):
        message["reasoning_content"] = "Let me think."
    count = body["parameters"].get("n", 1)
    choices = [{"index": at, "finish_reason": reason, "message": message} for at in range(count)]
    return {"output": {"choices": choices}, "usage": _usage(len(words)), "request_id": ID}


def _pieces(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The documents of the events; without incremental_output each would repeat the text so far."""
    assert body["parameters"].get("incremental_output") is True

    def piece(message: dict[str, Any], reason: str = "null", tokens: int = 1) -> dict[str, Any]:
        choices = [{"message": {"role": "assistant", "content": "", **message}, "finish_reason": reason}]
        return {"output": {"choices": choices}, "usage": _usage(tokens)}

    if body["parameters"].get("tools"):
        yield piece({"tool_calls": [_call("")]})
        for at in range(0, len(ARGUMENTS), 5):
            yield piece({"tool_calls": [_call(ARGUMENTS[at : at + 5], is_first=False)]})
        yield piece({"tool_calls": [_call("{}", index=1)]})
        yield piece({}, "tool_calls", 5)
        return
    words, reason = _words(body)
    yield piece({})
    if body["parameters"].get("enable_thinking"):
        yield piece({"reasoning_content": "Let me "})
        yield piece({"reasoning_content": "think."})
    for number, word in enumerate(words, 1):
        yield piece({"content": word}, tokens=number)
    yield piece({}, reason, len(words))
