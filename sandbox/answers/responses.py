"""The Responses API with one text message as output, or JSON in it. Shapes and events: OpenAI's API reference."""

import time
import uuid
from collections.abc import Iterator
from typing import Any

from sandbox.answers.by_schema import compose_as, read_format
from sandbox.answers.shape import Answer, Frame, Part, json_answer, named_frame, stream_answer
from sandbox.answers.wording import (
    BodyError,
    Pace,
    count_model_tokens,
    last_user_text,
    model_of,
    read_pace,
    split,
)


def answer_response(body: dict[str, Any]) -> Answer:
    """Answer POST /v1/responses; a stream of it has named events and no [DONE]."""
    question, pace = _question(body), read_pace(body)
    options = body.get("text")
    kind, schema = read_format(options.get("format") if isinstance(options, dict) else None)
    text = compose_as(kind, schema, question, pace)
    message_id = f"msg_{uuid.uuid4().hex}"
    base = _base(body)
    whole = base | {
        "status": "completed",
        "output": [_message(message_id, "completed", [_text_part(text)])],
        "usage": _usage(question, text),
    }
    if body.get("stream") is not True:
        return json_answer(whole)
    return stream_answer(_frames(base, whole, message_id, text, pace))


def _frames(
    base: dict[str, Any],
    whole: dict[str, Any],
    message_id: str,
    text: str,
    pace: Pace,
) -> Iterator[Frame]:
    events = _events(base, whole, message_id, text, pace.frames)
    for number, (name, members) in enumerate(events):
        pause_s = pace.interval_s if name == "response.output_text.delta" else 0.0
        part: Part = "finish" if name == "response.completed" else "content"
        yield named_frame(name, {"type": name, "sequence_number": number, **members}, pause_s, part)


def _events(
    base: dict[str, Any],
    whole: dict[str, Any],
    message_id: str,
    text: str,
    frames: int,
) -> Iterator[tuple[str, dict[str, Any]]]:
    item = {"output_index": 0}
    place = {"item_id": message_id, "output_index": 0, "content_index": 0}
    yield "response.created", {"response": base}
    yield "response.output_item.added", {**item, "item": _message(message_id, "in_progress", [])}
    yield "response.content_part.added", {**place, "part": _text_part("")}
    for piece in split(text, frames):
        yield "response.output_text.delta", {**place, "delta": piece, "logprobs": []}
    yield "response.output_text.done", {**place, "text": text, "logprobs": []}
    yield "response.content_part.done", {**place, "part": _text_part(text)}
    yield "response.output_item.done", {**item, "item": whole["output"][0]}
    yield "response.completed", {"response": whole}


def _question(body: dict[str, Any]) -> str:
    asked = body.get("input")
    if isinstance(asked, str):
        return asked
    if not isinstance(asked, list):
        raise BodyError("input must be a string or a list")
    return last_user_text(asked)


def _base(body: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": f"resp_{uuid.uuid4().hex}",
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "metadata": {},
        "model": model_of(body),
        "output": [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": None,
    }


def _message(message_id: str, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
    return {"id": message_id, "type": "message", "status": status, "role": "assistant", "content": content}


def _text_part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _usage(question: str, text: str) -> dict[str, Any]:
    asked, said = count_model_tokens(question), count_model_tokens(text)
    return {
        "input_tokens": asked,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": said,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": asked + said,
    }
