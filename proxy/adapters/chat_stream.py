"""One streamed chat completion: the events of another API in, OpenAI's chunks out. Pure; adapters build on it."""

import time
from collections.abc import Iterable, Mapping
from typing import Any
from uuid import uuid4


def wants_usage(body: Mapping[str, Any]) -> bool:
    """Whether the caller wants a stream to end with the usage."""
    options = body.get("stream_options")
    return isinstance(options, dict) and bool(options.get("include_usage"))


class ChatStream:
    """Made anew for each stream by `Adapter.chat_stream`.

    What `event` and `end` give goes out in that order; `[DONE]` follows by itself once a chunk has told why the answer
    ended. Without such a chunk the stream counts as cut, and the caller is told so.
    """

    def __init__(self, body: Mapping[str, Any]) -> None:
        """`body`: the caller's request."""
        self.id = f"chatcmpl-{uuid4().hex}"
        self.model = body.get("model")
        self.created = int(time.time())
        self._wants_usage = wants_usage(body)
        self._begun: set[int] = set()

    def event(self, name: str, data: str) -> Iterable[dict[str, Any]]:
        """The chunks of one event: its name, or "", and its data, of which several lines are joined by a blank.

        The data is meant to be JSON: of bare text, blanks, empty events and line ends would be lost on the way here.
        Raises ApiError for an event that tells of an error, which ends the stream.
        """
        raise NotImplementedError

    def end(self) -> Iterable[dict[str, Any]]:
        """The chunks that are still to come when the upstream's stream has ended well, by itself or with [DONE]."""
        return ()

    def chunk(
        self, delta: Mapping[str, Any], *, finish_reason: str | None = None, index: int = 0, logprobs: Any = None
    ) -> dict[str, Any]:
        """A chunk with this delta of one choice; the first of a choice gets the role."""
        if index not in self._begun:
            self._begun.add(index)
            delta = {"role": "assistant", "content": "", **delta}
        choice = {"index": index, "delta": dict(delta), "logprobs": logprobs, "finish_reason": finish_reason}
        return self._chunk([choice])

    def usage_chunk(self, usage: Mapping[str, Any] | None) -> list[dict[str, Any]]:
        """The last chunk, which tells the usage, where the caller wants it and it is known; else none."""
        if usage is None or not self._wants_usage:
            return []
        return [{**self._chunk([]), "usage": dict(usage)}]

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }
