"""A local model behind a small web service, as tutorials wrap one: `POST /chat`, events of `{"text", "message_id"}`.

This is the chat API of Langchain-Chatchat up to 0.2 and of what was built after it: the last question is `query`, what
was said before is `history`, and each event brings the text that is new. An answer that is not streamed comes as one
event or as one JSON object. There are no tools, no embeddings, and no counts of tokens; what would change an answer's
meaning is refused, what only colours it (`top_p`, `seed`, penalties) is left out.
Source: server/chat/chat.py of Langchain-Chatchat 0.2.
"""

import json
from collections.abc import Iterable
from typing import Any

from proxy.adapters.base import AdaptedRequest, Adapter, ApiError, Document, text_of
from proxy.adapters.chat_stream import ChatStream
from proxy.adapters.shapes import choice, completion
from proxy.errors import InvalidRequest

PATH = "/chat"
_LIMITS = ("max_completion_tokens", "max_tokens")


class PlainSse(Adapter):
    def chat_request(self, body: Document) -> AdaptedRequest:
        _refuse_what_it_lacks(body)
        *before, last = [
            {"role": message["role"], "content": text_of(message["content"])} for message in body["messages"]
        ]
        members = {
            "query": last["content"],
            "history": before,
            "stream": bool(body.get("stream")),
            "model_name": body["model"],
            "temperature": body.get("temperature"),
            "max_tokens": next((body[name] for name in _LIMITS if body.get(name) is not None), None),
        }
        return AdaptedRequest(PATH, {name: value for name, value in members.items() if value is not None})

    def chat_answer(self, body: Document, answer: Document) -> Document:
        text = _text(answer)
        return completion(body, choice(text), answer_id=_id(answer))

    def chat_stream(self, body: Document) -> ChatStream:
        return _Stream(body)


def _refuse_what_it_lacks(body: Document) -> None:
    asked = {
        "tools": (body.get("tools"), "tools"),
        "n": (body.get("n") not in (None, 1), "several choices"),
        "response_format": ((body.get("response_format") or {}).get("type", "text") != "text", "structured output"),
        "logprobs": (body.get("logprobs"), "log probabilities"),
        "stop": (body.get("stop"), "stop sequences"),
    }
    for name, (is_asked, what) in asked.items():
        if is_asked:
            raise InvalidRequest(f"This model's upstream has no {what}.", param=name)


class _Stream(ChatStream):
    def event(self, name: str, data: str) -> Iterable[Document]:
        document = json.loads(data)
        text = _text(document)
        if not self._begun:
            self.id = _id(document) or self.id
        yield self.chunk({"content": text})

    def end(self) -> Iterable[Document]:
        """Only the end of the body tells that the answer has ended."""
        yield self.chunk({}, finish_reason="stop")


def _text(document: Document) -> str:
    """Its errors come with 200 too: `{"code": 404, "msg": …}`."""
    if "text" not in document and "msg" in document:
        code: Any = document.get("code")
        raise ApiError(code if isinstance(code, int) and 400 <= code < 600 else 502, str(document["msg"]))
    text: str = document["text"]
    return text


def _id(document: Document) -> str | None:
    given = document.get("message_id")
    return f"chatcmpl-{given}" if given else None
