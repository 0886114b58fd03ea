"""RAGFlow sorts errors by the words in their text: it asks again after what may pass, and for nothing else.

All texts that the proxy can send are tried: those that its errors have, and those that its code gives them.
"""

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import proxy
from proxy import errors
from proxy.errors import ProxyError, RequestError, ServiceError, as_openai_error
from proxy.relay import BROKE_OFF
from tests.support.ragflow import RELEASES, Release, tries_again

_FOLDER = Path(proxy.__file__).parent


def _kinds() -> dict[str, type[ProxyError]]:
    found = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type)}
    return {name: kind for name, kind in found.items() if issubclass(kind, RequestError | ServiceError)}


def _texts_in_code(kinds: dict[str, type[ProxyError]]) -> Iterator[tuple[str, str]]:
    """Each error that is made with a text of its own; what a text takes from elsewhere is left out of it."""
    for file in _FOLDER.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in kinds and node.args:
                yield node.func.id, "".join(_constants(node.args[0]))


def _constants(node: ast.expr) -> Iterator[str]:
    return (part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str))


def _errors() -> list[Any]:
    kinds = _kinds()
    texts = {*_texts_in_code(kinds), *((name, kind.message) for name, kind in kinds.items())}
    return [pytest.param(kinds[name](text), id=f"{name}-{text}") for name, text in sorted(texts)]


def _as_clients_say_it(error: ProxyError) -> list[Exception]:
    """By the openai client of today, by earlier ones, and by RAGFlow's own in Go."""
    body = as_openai_error(error)
    return [
        Exception(f"Error code: {error.status} - {error.message}"),
        Exception(f"Error code: {error.status} - {body}"),
        Exception(f"API request failed with status {error.status}: {json.dumps(body)}"),
    ]


@pytest.mark.parametrize("error", _errors())
def test_errors_that_may_pass_are_tried_again_and_no_others(error: ProxyError) -> None:
    may_pass = error.status >= 500 or error.status == 429
    for release in RELEASES:
        assert [tries_again(said, release) for said in _as_clients_say_it(error)] == [may_pass] * 3, release


@pytest.mark.parametrize("release", RELEASES)
def test_answer_that_broke_off_is_not_asked_for_again(release: Release) -> None:
    event = json.loads(BROKE_OFF.removeprefix(b"data: "))
    assert not tries_again(Exception(event["error"]["message"]), release)  # what the openai client says of it
