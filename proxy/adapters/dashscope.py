"""Alibaba Cloud's DashScope by its own API: Qwen's text generation and the text embeddings.

`base_url` is https://dashscope.aliyuncs.com/api/v1 or another region's. What OpenAI's API has under the same name goes
into `parameters` as it is, and so does what only DashScope knows (`top_k`, `enable_search`, `enable_thinking`, …).
Images are not here: they want another path and other models.
Source: help.aliyun.com/zh/model-studio/qwen-api-via-dashscope, and the dashscope package 2.0 (generation.py,
text_embedding.py, common/utils.py).
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from proxy.adapters.base import AdaptedRequest, Adapter, ApiError, Document, text_of
from proxy.adapters.chat_stream import ChatStream
from proxy.adapters.shapes import choice, completion, embedding_list, usage
from proxy.errors import InvalidRequest

GENERATION = "/services/aigc/text-generation/generation"
TEXT_EMBEDDING = "/services/embeddings/text-embedding/text-embedding"

# Members that are said in another place, and those that mean something to OpenAI's service alone.
_NOT_PARAMETERS = frozenset(
    {"model", "messages", "stream", "stream_options", "max_completion_tokens"}
    | {"user", "store", "metadata", "service_tier", "safety_identifier", "prompt_cache_key", "drop_params"}
)
# By how a code begins, the first that fits. Source: help.aliyun.com/zh/dashscope/return-status-code-description.
_STATUSES = {
    "InvalidApiKey": 401,
    "Invalid": 400,
    "Data": 400,
    "BadRequest": 400,
    "AccessDenied": 403,
    "ModelNotFound": 404,
    "Throttling": 429,
    "LimitRequests": 429,
    "ServiceUnavailable": 503,
}
_EMBEDDING_PARAMETERS = ("text_type", "output_type", "instruct")


class DashScope(Adapter):
    def chat_request(self, body: Document) -> AdaptedRequest:
        parameters = {name: value for name, value in body.items() if name not in _NOT_PARAMETERS and value is not None}
        if body.get("max_completion_tokens") is not None:
            parameters["max_tokens"] = body["max_completion_tokens"]
        parameters["result_format"] = "message"
        fields = {}
        if body.get("stream"):
            parameters["incremental_output"] = True  # each event would else repeat the whole text
            fields["X-DashScope-SSE"] = "enable"
        messages = [_message(message) for message in body["messages"]]
        members = {"model": body["model"], "input": {"messages": messages}, "parameters": parameters}
        return AdaptedRequest(GENERATION, members, fields)

    def chat_answer(self, body: Document, answer: Document) -> Document:
        choices = [_choice(at, given) for at, given in enumerate(_output(answer)["choices"])]
        return completion(body, *choices, usage=_usage(answer), answer_id=_id(answer))

    def chat_stream(self, body: Document) -> ChatStream:
        return _Stream(body)

    def embeddings_request(self, body: Document) -> AdaptedRequest:
        given = body["input"]
        texts = [given] if isinstance(given, str) else given
        if not all(isinstance(text, str) for text in texts):
            raise InvalidRequest("This model's upstream embeds texts, and no token arrays.", param="input")
        parameters = {name: body[name] for name in _EMBEDDING_PARAMETERS if name in body}
        if body.get("dimensions") is not None:
            parameters["dimension"] = body["dimensions"]
        members = {"model": body["model"], "input": {"texts": texts}, "parameters": parameters}
        return AdaptedRequest(TEXT_EMBEDDING, members)

    def embeddings_answer(self, body: Document, answer: Document) -> Document:
        vectors = {int(item["text_index"]): item["embedding"] for item in _output(answer)["embeddings"]}
        tokens = answer.get("usage", {}).get("total_tokens")
        return embedding_list(body, (vectors[at] for at in range(len(vectors))), prompt_tokens=tokens)


class _Stream(ChatStream):
    """Its events tell the usage so far, each one; a finish_reason is the text "null" until there is one."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        super().__init__(body)
        self._usage: Document | None = None
        self._called: set[tuple[int, int]] = set()  # choice and call of which the id and the name were told

    def event(self, name: str, data: str) -> Iterable[Document]:
        document = json.loads(data)
        output = _output(document, is_error=name == "error")
        if not self._begun:
            self.id = _id(document) or self.id
        self._usage = _usage(document) or self._usage
        for at, given in enumerate(output["choices"]):
            index = given.get("index", at)
            delta = self._delta(index, given.get("message") or {})
            reason = _reason(given)
            if delta or reason:
                yield self.chunk(delta, finish_reason=reason, index=index, logprobs=given.get("logprobs"))

    def end(self) -> Iterable[Document]:
        return self.usage_chunk(self._usage)

    def _delta(self, index: int, message: Mapping[str, Any]) -> Document:
        delta = {name: message[name] for name in ("content", "reasoning_content") if message.get(name)}
        calls = [self._call(index, at, call) for at, call in enumerate(message.get("tool_calls") or ())]
        return {**delta, "tool_calls": calls} if calls else delta

    def _call(self, index: int, at: int, call: Mapping[str, Any]) -> Document:
        """A piece of a call: clients put ids and names together as they do texts, so each is told once."""
        at = call.get("index", at)
        function = call.get("function") or {}
        piece: Document = {"index": at, "function": {"arguments": function.get("arguments") or ""}}
        if (index, at) not in self._called:
            self._called.add((index, at))
            piece |= {"id": call.get("id"), "type": "function"}
            piece["function"]["name"] = function.get("name")
        return piece


def _message(message: Document) -> Document:
    role = "system" if message["role"] == "developer" else message["role"]
    return {**message, "role": role, "content": text_of(message.get("content"))}


def _choice(at: int, given: Document) -> Document:
    message = given["message"]
    others = {name: message[name] for name in ("reasoning_content", "tool_calls") if message.get(name)}
    made = choice(message.get("content"), _reason(given) or "stop", index=given.get("index", at), **others)
    return {**made, "logprobs": given.get("logprobs")}


def _reason(given: Mapping[str, Any]) -> str | None:
    reason: str | None = given.get("finish_reason")
    return None if reason == "null" else reason


def _output(document: Document, *, is_error: bool = False) -> Document:
    """What was asked for; an error may come with 200, and in a stream it has no other status."""
    if is_error or (document.get("code") and not document.get("output")):
        code = str(document.get("code"))
        status = next((status for start, status in _STATUSES.items() if code.startswith(start)), 500)
        raise ApiError(status, str(document.get("message") or code), code=code)
    output: Document = document["output"]
    return output


def _usage(document: Document) -> Document | None:
    counts = document.get("usage") or {}
    if "input_tokens" not in counts:
        return None
    names = {"prompt_tokens_details": "prompt_tokens_details", "output_tokens_details": "completion_tokens_details"}
    details = {ours: counts[theirs] for theirs, ours in names.items() if counts.get(theirs)}
    return usage(counts["input_tokens"], counts.get("output_tokens", 0), **details)


def _id(document: Document) -> str | None:
    given = document.get("request_id")
    return f"chatcmpl-{given}" if given else None
