"""The example of docs/adapters.md, run as it stands on the page. tests/e2e/test_adapters.py has it serve."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.adapters import Adapter, ApiError
from proxy.adapters.call import CHAT, EMBEDDINGS, AdaptedCall
from proxy.adapters.find import BUILT_IN, find_adapter
from tests.support.adapters_page import PAGE, company_module, company_test

_BODY = {"model": "chat-large", "messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture
def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Adapter]:
    monkeypatch.setattr(sys, "path", sys.path.copy())
    (tmp_path / "company_llm.py").write_text(company_module())
    [name] = re.findall(r'"(company_llm:\w+)"', PAGE.read_text())
    yield find_adapter(name, tmp_path)
    sys.modules.pop("company_llm")


def test_request_and_answers_are_those_that_the_page_shows(gateway: Adapter) -> None:
    asked, answered, refused = re.findall(r"^\{.*\}$", PAGE.read_text(), re.MULTILINE)
    call = AdaptedCall(gateway, CHAT, json.dumps(_BODY).encode())
    assert (call.path, json.loads(call.content)) == ("/invoke", json.loads(asked))
    completion = gateway.chat_answer(_BODY, json.loads(answered))
    assert completion["choices"][0]["message"]["content"] == "Hello!"
    assert completion["usage"]["total_tokens"] == 5
    with pytest.raises(ApiError, match="too many calls") as caught:
        gateway.chat_answer(_BODY, json.loads(refused))
    assert caught.value.status == 429


def test_embeddings_of_the_example(gateway: Adapter) -> None:
    call = AdaptedCall(gateway, EMBEDDINGS, b'{"model": "e", "input": "a"}')
    assert (call.path, json.loads(call.content)) == ("/vectorize", {"scene": "e", "sentences": ["a"]})
    body, _ = call.whole(b'{"ret": 0, "result": {"vectors": [[1, 2]], "inTokens": 1}}')
    assert json.loads(body)["data"][0]["embedding"] == [1, 2]


def test_test_of_the_example_passes(gateway: Adapter) -> None:
    names: dict[str, object] = {}
    exec(company_test(), names)
    [test] = [value for name, value in names.items() if name.startswith("test_")]
    assert callable(test)
    test()


def test_page_names_the_adapters_that_are_here() -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), re.MULTILINE)) - {"adapter"} == BUILT_IN.keys()
