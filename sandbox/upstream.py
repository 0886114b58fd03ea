"""The OpenAI-shaped upstream: checks each request's token, lets `answers` speak. `app` has the routes."""

import json
from collections.abc import Callable
from typing import Any

from sandbox.answers.shape import Answer, openai_error
from sandbox.answers.wording import BodyError
from sandbox.journal import Entry, Journal
from sandbox.tokens import TokenMint, TokenState

JsonView = Callable[[dict[str, Any]], Answer]
EntryView = Callable[[Entry], Answer]

_BECAUSE: dict[TokenState, str] = {
    "missing": "No access token was sent.",
    "bad": "The access token is not one of this issuer's.",
    "expired": "The access token has expired.",
    "revoked": "The access token was revoked.",
    "valid": "The access token is refused.",
}


class Upstream:
    """Puts the token check before each view."""

    def __init__(self, mint: TokenMint, journal: Journal) -> None:
        self._mint = mint
        self._journal = journal

    def guard(self, answer: EntryView) -> EntryView:
        """Build a view that answers 401 unless the request has a good token."""

        def view(entry: Entry) -> Answer:
            return self._refusal(entry, read_object(entry.body)) or answer(entry)

        return view

    def guard_json(self, answer: JsonView) -> EntryView:
        """The same for a view that takes a JSON object: 400 where there is none or the view cannot use it."""

        def view(entry: Entry) -> Answer:
            body = read_object(entry.body)
            return self._refusal(entry, body) or _answer_json(body, answer)

        return view

    def _refusal(self, entry: Entry, body: dict[str, Any] | None) -> Answer | None:
        """Note the model and the token of a request; an answer only if the token is not good."""
        entry.model = str(body["model"]) if body and "model" in body else None
        finding = self._mint.check_authorization(entry.values_of("Authorization"))
        entry.token, entry.token_serial = finding.state, finding.serial
        self._journal.count_token(entry)
        return None if finding.state == "valid" else refuse_token(finding.state)


def _answer_json(body: dict[str, Any] | None, answer: JsonView) -> Answer:
    if body is None:
        return openai_error(400, "The body must be a JSON object.", "invalid_request_error")
    try:
        return answer(body)
    except BodyError as error:
        return openai_error(400, str(error), "invalid_request_error")


def refuse_token(state: TokenState) -> Answer:
    """Build the 401 for a token (RFC 6750 §3.1)."""
    challenge = (("WWW-Authenticate", 'Bearer error="invalid_token"'),)
    return openai_error(401, _BECAUSE[state], "authentication_error", "invalid_token", challenge)


def answer_unknown_route(entry: Entry) -> Answer:
    """Answer a path that is none of ours."""
    message = f"Unknown route: {entry.method} {entry.path}"
    return openai_error(404, message, "invalid_request_error", "unknown_url")


def answer_wrong_method(entry: Entry) -> Answer:
    """Answer a known path with a method that it does not have."""
    message = f"Not allowed: {entry.method} {entry.path}"
    return openai_error(405, message, "invalid_request_error", "method_not_allowed")


def read_object(body: bytes | None) -> dict[str, Any] | None:
    """Read a JSON object; None where the bytes are anything else."""
    try:
        value = json.loads(body or b"")
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
