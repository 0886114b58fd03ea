"""The shapes of OpenAI's answers, for adapters to fill; and a streamed answer made of a whole one, and back. Pure."""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import uuid4

Document = dict[str, Any]


def completion(
    body: Mapping[str, Any], *choices: Document, usage: Document | None = None, answer_id: str | None = None
) -> Document:
    """A chat completion for the request `body`; `choices` as `choice` makes them."""
    document: Document = {
        "id": answer_id or f"chatcmpl-{uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": body.get("model"),
        "choices": list(choices),
    }
    return document if usage is None else {**document, "usage": usage}


def choice(content: str | None, finish_reason: str = "stop", *, index: int = 0, **members: Any) -> Document:
    """One choice of a completion; `members` are further ones of its message, such as `tool_calls`."""
    message = {"role": "assistant", "content": content, **members}
    return {"index": index, "message": message, "logprobs": None, "finish_reason": finish_reason}


def usage(prompt_tokens: int, completion_tokens: int, **details: Any) -> Document:
    """What an answer took; `details` are further members of the object."""
    total = prompt_tokens + completion_tokens
    counts = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens, "total_tokens": total}
    return {**counts, **details}


def embedding_list(
    body: Mapping[str, Any], vectors: Iterable[Sequence[float]], *, prompt_tokens: int | None = None
) -> Document:
    """The embeddings of the inputs of `body`, in their order."""
    data = [{"object": "embedding", "index": at, "embedding": list(vector)} for at, vector in enumerate(vectors)]
    document: Document = {"object": "list", "data": data, "model": body.get("model")}
    if prompt_tokens is not None:
        document["usage"] = {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens}
    return document


def chunks_of(whole: Mapping[str, Any]) -> list[Document]:
    """A completion as the chunks of a stream: its choices, each as a whole, and the usage."""
    choices = [_as_delta(choice) for choice in whole["choices"]]
    head = {**whole, "object": "chat.completion.chunk"}
    counts = head.pop("usage", None)
    chunks = [{**head, "choices": [choice]} for choice in choices]
    return chunks if counts is None else [*chunks, {**head, "choices": [], "usage": counts}]


def completion_of(chunks: Iterable[Mapping[str, Any]]) -> Document:
    """A stream's chunks as one completion. Raises ValueError where none tells why a choice ended: it was cut."""
    whole: Document = {}
    choices: dict[int, Document] = {}
    for chunk in chunks:
        whole = {**chunk, **whole, **({"usage": chunk["usage"]} if chunk.get("usage") else {})}
        for part in chunk["choices"]:
            _add(choices.setdefault(part["index"], choice(None, "", index=part["index"])), part)
    if not choices or not all(choice["finish_reason"] for choice in choices.values()):
        raise ValueError("no end")
    return {**whole, "object": "chat.completion", "choices": [choices[index] for index in sorted(choices)]}


def _as_delta(whole: Document) -> Document:
    calls = whole["message"].get("tool_calls")
    delta = dict(whole["message"])
    if calls:
        delta["tool_calls"] = [{"index": at, **call} for at, call in enumerate(calls)]
    return {**{name: value for name, value in whole.items() if name != "message"}, "delta": delta}


def _add(whole: Document, part: Mapping[str, Any]) -> None:
    whole["finish_reason"] = part.get("finish_reason") or whole["finish_reason"]
    message = whole["message"]
    for name, value in part["delta"].items():
        if name == "tool_calls":
            _add_calls(message.setdefault("tool_calls", []), value)
        elif name in ("content", "reasoning_content") and isinstance(value, str):
            message[name] = (message.get(name) or "") + value


def _add_calls(calls: list[Document], parts: Iterable[Mapping[str, Any]]) -> None:
    for part in parts:
        if part["index"] == len(calls):
            calls.append({"id": part.get("id"), "type": "function", "function": {"name": "", "arguments": ""}})
        function = calls[part["index"]]["function"]
        for name in function:
            function[name] += part.get("function", {}).get(name) or ""
