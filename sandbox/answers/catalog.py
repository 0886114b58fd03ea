"""The models on offer and moderation, which finds nothing wrong with anything."""

import uuid
from typing import Any

from sandbox.answers.shape import Answer, json_answer, openai_error
from sandbox.answers.wording import BodyError, model_of

# context_window is no member of OpenAI's: gateways add their own, and those must reach the caller.
MODELS = [
    {"id": name, "object": "model", "created": 1_700_000_000, "owned_by": "sandbox", "context_window": window}
    for name, window in (("sandbox-chat", 128_000), ("sandbox-embedding", 8_192), ("sandbox-rerank", 4_096))
]
_CATEGORIES = ("harassment", "hate", "illicit", "self-harm", "sexual", "violence")


def answer_models() -> Answer:
    """Answer GET /v1/models."""
    return json_answer({"object": "list", "data": MODELS})


def answer_model(name: str) -> Answer:
    """Answer GET /v1/models/NAME."""
    for model in MODELS:
        if model["id"] == name:
            return json_answer(model)
    message = f"The model '{name}' does not exist."
    return openai_error(404, message, "invalid_request_error", "model_not_found")


def answer_moderation(body: dict[str, Any]) -> Answer:
    """Answer POST /v1/moderations: one result for each input."""
    asked = body.get("input")
    if not isinstance(asked, str | list):
        raise BodyError("input must be a string or a list")
    result = {
        "flagged": False,
        "categories": dict.fromkeys(_CATEGORIES, False),
        "category_scores": dict.fromkeys(_CATEGORIES, 0.0),
    }
    results = [result] * (len(asked) if isinstance(asked, list) else 1)
    return json_answer({"id": f"modr-{uuid.uuid4().hex}", "model": model_of(body), "results": results})
