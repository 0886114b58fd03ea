"""The older text completions, whole or in chunks. Shapes: OpenAI's API reference, "Completions"."""

import time
import uuid
from collections.abc import Iterator
from typing import Any

from sandbox.answers.shape import DONE, Answer, Frame, data_frame, json_answer, stream_answer
from sandbox.answers.wording import (
    BodyError,
    Pace,
    compose,
    count_model_tokens,
    model_of,
    read_number,
    read_pace,
    split,
)


def answer_completion(body: dict[str, Any]) -> Answer:
    """Answer POST /v1/completions: n choices for each prompt."""
    pace, prompts = read_pace(body), _prompts(body)
    times = int(read_number(body, "n", 1, 1, 128))
    texts = [compose(prompt, pace, number) for prompt in prompts for number in range(times)]
    base = {
        "id": f"cmpl-{uuid.uuid4().hex}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": model_of(body),
    }
    usage = _usage(prompts, texts)
    if body.get("stream") is not True:
        choices = [_choice(index, text, "stop") for index, text in enumerate(texts)]
        return json_answer({**base, "choices": choices, "usage": usage})
    options = body.get("stream_options")
    wants_usage = isinstance(options, dict) and options.get("include_usage") is True
    return stream_answer(_frames(base, texts, pace, usage if wants_usage else None))


def _frames(
    base: dict[str, Any],
    texts: list[str],
    pace: Pace,
    usage: dict[str, int] | None,
) -> Iterator[Frame]:
    pieces_by_step = zip(*(split(text, pace.frames) for text in texts), strict=True)
    for step, pieces in enumerate(pieces_by_step):
        for index, piece in enumerate(pieces):
            pause_s = pace.interval_s if step and not index else 0.0
            yield data_frame({**base, "choices": [_choice(index, piece, None)]}, pause_s)
    for index in range(len(texts)):
        yield data_frame({**base, "choices": [_choice(index, "", "stop")]}, part="finish")
    if usage:
        yield data_frame({**base, "choices": [], "usage": usage}, part="usage")
    yield DONE


def _prompts(body: dict[str, Any]) -> list[str]:
    """Get the prompts as text; token arrays are shown as their numbers."""
    prompt = body.get("prompt")
    if isinstance(prompt, str):
        return [prompt]
    if not isinstance(prompt, list) or not prompt:
        raise BodyError("prompt must be a string or a list that is not empty")
    if all(isinstance(item, int) for item in prompt):
        return [str(prompt)]
    return [item if isinstance(item, str) else str(item) for item in prompt]


def _choice(index: int, text: str, finish_reason: str | None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": finish_reason}


def _usage(prompts: list[str], texts: list[str]) -> dict[str, int]:
    prompt, completion = sum(map(count_model_tokens, prompts)), sum(map(count_model_tokens, texts))
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
