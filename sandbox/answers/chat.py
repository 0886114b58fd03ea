"""Chat completions: text, JSON or tool calls, whole or in chunks. Shapes: OpenAI's API reference."""

import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sandbox.answers.by_schema import compose_arguments, compose_as, read_format
from sandbox.answers.shape import DONE, Answer, Frame, data_frame, json_answer, stream_answer
from sandbox.answers.wording import (
    BodyError,
    Pace,
    count_model_tokens,
    last_user_text,
    model_of,
    read_list,
    read_number,
    read_pace,
    split,
)


def answer_chat(body: dict[str, Any]) -> Answer:
    """Answer POST /v1/chat/completions; a request with tools gets a call of one of them, response_format gets JSON."""
    talk = _Talk.read(body)
    if body.get("stream") is not True:
        return json_answer(talk.completion())
    options = body.get("stream_options")
    return stream_answer(talk.frames(isinstance(options, dict) and options.get("include_usage") is True))


@dataclass(frozen=True)
class _Talk:
    """A request as far as the answer depends on it."""

    model: str
    question: str
    tool: str | None
    format: str  # text, json_object or json_schema
    schema: Any  # of the tool's parameters, else of the answer
    choices: int
    pace: Pace

    @classmethod
    def read(cls, body: dict[str, Any]) -> "_Talk":
        messages = read_list(body, "messages")
        if not messages:
            raise BodyError("messages must be a list that is not empty")
        choices = int(read_number(body, "n", 1, 1, 128))
        question, tool = last_user_text(messages), _tool_to_call(body, messages)
        kind, schema = read_format(body.get("response_format"))
        if tool:
            schema = _parameters(body, tool)
        return cls(model_of(body), question, tool, kind, schema, choices, read_pace(body))

    def completion(self) -> dict[str, Any]:
        choices = [self._choice(index) for index in range(self.choices)]
        return {**self._base("chat.completion"), "choices": choices, "usage": self._usage()}

    def frames(self, include_usage: bool) -> Iterator[Frame]:
        base = self._base("chat.completion.chunk") | ({"usage": None} if include_usage else {})
        for index in range(self.choices):
            yield data_frame({**base, "choices": [_chunk_choice(index, self._first_delta())]})
        texts = [split(self._text(index), self.pace.frames) for index in range(self.choices)]
        for pieces in zip(*texts, strict=True):
            for index, piece in enumerate(pieces):
                # Choices of one step come together: the pause stands before the first of them.
                pause_s = 0.0 if index else self.pace.interval_s
                yield data_frame({**base, "choices": [_chunk_choice(index, self._delta(piece))]}, pause_s)
        for index in range(self.choices):
            last = _chunk_choice(index, {}, self._finish_reason)
            yield data_frame({**base, "choices": [last]}, part="finish")
        if include_usage:
            yield data_frame({**base, "choices": [], "usage": self._usage()}, part="usage")
        yield DONE

    @property
    def _finish_reason(self) -> str:
        return "tool_calls" if self.tool else "stop"

    def _base(self, kind: str) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "object": kind,
            "created": int(time.time()),
            "model": self.model,
            "system_fingerprint": "fp_sandbox",
        }

    def _text(self, index: int) -> str:
        if self.tool:
            return compose_arguments(self.schema, self.question, self.pace, index)
        return compose_as(self.format, self.schema, self.question, self.pace, index)

    def _choice(self, index: int) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": self._text(index), "refusal": None}
        if self.tool:
            message |= {"content": None, "tool_calls": [_tool_call(self.tool, self._text(index))]}
        return {"index": index, "message": message, "logprobs": None, "finish_reason": self._finish_reason}

    def _first_delta(self) -> dict[str, Any]:
        if self.tool:
            calls = [{"index": 0, **_tool_call(self.tool, "")}]
            return {"role": "assistant", "content": None, "tool_calls": calls}
        return {"role": "assistant", "content": "", "refusal": None}

    def _delta(self, piece: str) -> dict[str, Any]:
        if self.tool:
            return {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}
        return {"content": piece}

    def _usage(self) -> dict[str, int]:
        prompt = count_model_tokens(self.question)
        completion = sum(count_model_tokens(self._text(index)) for index in range(self.choices))
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _tool_to_call(body: dict[str, Any], messages: list[Any]) -> str | None:
    """Choose the tool: the one tool_choice names, else the first; none after a result: loops must end."""
    names = [_function_name(tool) for tool in read_list(body, "tools")]
    choice = body.get("tool_choice")
    has_result = isinstance(messages[-1], dict) and messages[-1].get("role") == "tool"
    if not names or choice == "none" or has_result:
        return None
    return _function_name(choice) if isinstance(choice, dict) and "function" in choice else names[0]


def _parameters(body: dict[str, Any], name: str) -> Any:
    """Get the schema of a tool's parameters; None for a tool that is not there."""
    functions = [tool["function"] for tool in read_list(body, "tools")]
    return next((function.get("parameters") for function in functions if function["name"] == name), None)


def _function_name(tool: Any) -> str:
    function = tool.get("function") if isinstance(tool, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str) or not name:
        raise BodyError("each of tools needs a function with a name")
    return name


def _tool_call(name: str, arguments: str) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": function}


def _chunk_choice(index: int, delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
