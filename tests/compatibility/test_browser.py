"""Pages of other origins in real Chromium, by the recipe's code and by fetch; tests/e2e has the status page."""

import base64
import hashlib
import json
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.browser import Browser, BrowserError, PageServer
from tests.support.compatibility import Client
from tests.support.proxy_process import ProxyFarm, ProxyProcess
from tests.support.recipe import code_of
from tests.support.sandbox_client import SandboxClient

NAME = "A page in Chromium"
VERSION = subprocess.run(["chromium", "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
CLIENTS = [Client(NAME, VERSION, pinned=False)]
KEY = "key-of-the-page"
ANSWERS = ("stream", "events", "client")  # functions of the recipe, as browser_page.mjs offers them


def _content(answer: Any) -> Any:
    return answer["choices"][0]["message"]["content"]


HELLO = [{"role": "user", "content": "Hello wörld"}]
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
PARTS = [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, PICTURE]}]
PLACE = {"type": "object", "properties": {"city": {"type": "string"}}}
CITY = '{"city": "You said: Hello wörld"}'
TOOL = {"type": "function", "function": {"name": "weather", "parameters": PLACE}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "place", "schema": PLACE}}

# What a page posts with fetch alone, and what it finds in the answer.
POSTS: dict[str, tuple[str, dict[str, Any], Callable[[Any], Any], Any]] = {
    "chat": ("/chat/completions", {"messages": HELLO}, _content, "You said: Hello wörld"),
    "tools": (
        "/chat/completions",
        {"messages": HELLO, "tools": [TOOL]},
        lambda answer: answer["choices"][0]["message"]["tool_calls"][0]["function"],
        {"name": "weather", "arguments": CITY},
    ),
    "structured output": (
        "/chat/completions",
        {"messages": HELLO, "response_format": FORMAT},
        _content,
        CITY,
    ),
    "embeddings (floats)": (
        "/embeddings",
        {"input": ["one"], "encoding_format": "float"},
        lambda answer: [type(number) for number in answer["data"][0]["embedding"]],
        [float] * 8,
    ),
    "embeddings (base64)": (
        "/embeddings",
        {"input": ["one"], "encoding_format": "base64"},
        lambda answer: len(base64.b64decode(answer["data"][0]["embedding"])),
        8 * 4,
    ),
    "token arrays": ("/embeddings", {"input": [[1, 2], [3]]}, lambda answer: len(answer["data"]), 2),
    "rerank": (
        "/rerank",
        {"query": "red fox", "documents": ["cow", "red fox"]},
        lambda answer: [result["index"] for result in answer["results"]],
        [1, 0],
    ),
    "vision parts": ("/chat/completions", {"messages": PARTS}, _content, "You said: What is it?"),
}
POST_ALL = """Promise.all(%s.map(async ([path, body]) => {
  const headers = { Authorization: "Bearer %s", "Content-Type": "application/json" };
  const answer = await fetch("%s" + path, { method: "POST", headers, body: JSON.stringify(body) });
  return answer.json();
}))"""


def config_of(sandbox: SandboxClient, pages: PageServer) -> dict[str, Any]:
    """For the pages of one origin."""
    key = {"label": "page", "sha256": hashlib.sha256(KEY.encode()).hexdigest()}
    return sandbox.config(server={"allowed_origins": [pages.origin]}, client_keys=[key])


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture(scope="module")
def pages() -> Iterator[PageServer]:
    with PageServer() as pages:
        yield pages


@pytest.fixture
def proxy(farm: ProxyFarm, sandbox: SandboxClient, pages: PageServer) -> ProxyProcess:
    return farm.proxy(config_of(sandbox, pages))


@pytest.fixture(scope="module")
def exchanges(
    browser: Browser, pages: PageServer, farm: ProxyFarm, _sandbox_of_session: SandboxClient
) -> tuple[dict[str, Any], list[Any]]:
    """The answer to each of POSTS, all asked for by one page, and the bodies that came upstream."""
    sandbox = _sandbox_of_session
    sandbox.reset()
    proxy = farm.proxy(config_of(sandbox, pages))
    browser.open(pages.origin)
    posts = json.dumps([(path, {"model": "m", **body}) for path, body, _, _ in POSTS.values()])
    answers = browser.evaluate(POST_ALL % (posts, KEY, proxy.api))
    browser.leave()
    return dict(zip(POSTS, answers, strict=True)), [json.loads(entry["body"]) for entry in sandbox.log()]


def cell(feature: str) -> pytest.MarkDecorator:
    return pytest.mark.cell(client=NAME, feature=feature)


@pytest.mark.parametrize("feature", [pytest.param(feature, marks=cell(feature)) for feature in POSTS])
def test_page_posts_with_fetch_and_reads_the_answer(exchanges: tuple[dict[str, Any], list[Any]], feature: str) -> None:
    answers, asked = exchanges
    _, body, read, expected = POSTS[feature]
    assert read(answers[feature]) == expected
    assert {"model": "m", **body} in asked


@cell("stream")
@pytest.mark.parametrize("name", ANSWERS)
def test_page_of_an_allowed_origin_reads_a_stream_by_the_recipe(
    browser: Browser, proxy: ProxyProcess, pages: PageServer, name: str
) -> None:
    browser.open(pages.origin)
    texts = browser.call(name, proxy.api, KEY)
    assert "Hello wörld" in "".join(texts)
    assert len([text for text in texts if text]) > 1
    seen = browser.leave()
    assert seen["console"] == []
    assert f"POST {proxy.api}/chat/completions" in seen["requests"]


def test_page_gets_every_byte_and_may_read_the_request_id(
    browser: Browser, proxy: ProxyProcess, sandbox: SandboxClient, pages: PageServer
) -> None:
    browser.open(pages.origin)
    answer = browser.call("raw", proxy.api, KEY)
    browser.leave()
    assert answer["status"] == 200
    assert f"request_id={answer['requestId']} caller=page" in proxy.log()
    assert answer["text"].endswith("data: [DONE]\n\n")
    assert hashlib.sha256(answer["text"].encode()).hexdigest() == sandbox.last()["answer_sha256"]


@cell("cancel")
@pytest.mark.parametrize("leave", ["tab closed", "AbortController"])
def test_page_reads_the_first_text_of_an_open_stream_and_leaving_it_closes_the_upstream(
    browser: Browser, proxy: ProxyProcess, sandbox: SandboxClient, pages: PageServer, leave: str
) -> None:
    sandbox.frames(b'data: {"choices": [{"delta": {"content": "first"}}]}\n\n', b"data: {}\n\n", pause_ms=20_000)
    browser.open(pages.origin)
    assert browser.call("begin", proxy.api, KEY) == "first"
    sandbox.wait_until(lambda state: state["open"] == 1)
    if leave == "AbortController":
        browser.call("abort")
        sandbox.wait_until(lambda state: state["open"] == 0, within_s=1)
        browser.leave()
    else:
        browser.leave()
        sandbox.wait_until(lambda state: state["open"] == 0, within_s=1)
    assert sandbox.last()["end"] == "caller_gone"


@cell("errors")
def test_stream_that_broke_off_and_a_refusal_are_errors_to_the_recipe(
    browser: Browser, proxy: ProxyProcess, sandbox: SandboxClient, pages: PageServer
) -> None:
    browser.open(pages.origin)
    sandbox.faults(upstream=[{"kind": "cut", "frames": 2}])
    with pytest.raises(BrowserError, match="broke off"):
        browser.call("stream", proxy.api, KEY)
    with pytest.raises(BrowserError, match=r"expired API key\. \(request [0-9a-f]{32}\)"):
        browser.call("stream", proxy.api, "another key")
    browser.leave()


def test_page_of_another_origin_is_refused_by_the_browser_and_nothing_is_asked_upstream(
    browser: Browser, proxy: ProxyProcess, sandbox: SandboxClient, pages: PageServer
) -> None:
    browser.open(pages.other_origin)
    with pytest.raises(BrowserError, match="Failed to fetch"):
        browser.call("raw", proxy.api, KEY)
    assert any("blocked by CORS policy" in line for line in browser.leave()["console"])
    assert sandbox.log() == []


def test_recipe_names_the_setting_that_lets_the_page_in() -> None:
    config: Any = code_of("browser", "yaml")[0]
    assert "allowed_origins:" in config
