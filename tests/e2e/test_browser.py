"""The status page in real Chromium, as an operator sees it; tests/compatibility has pages that ask for answers."""

from collections.abc import Iterator

import httpx
import pytest

from tests.support.browser import Browser
from tests.support.proxy_process import ProxyFarm, ProxyProcess
from tests.support.sandbox_client import SandboxClient
from tests.support.waiting import wait_for

LONG_NAME = "a" * 100  # wider than a phone

# The lowest contrast of any text with what is behind it, as WCAG 2.2 counts it.
CONTRAST = """(() => {
  const light = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map((part) => part / 255)
      .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    const colour = getComputedStyle(element).backgroundColor;
    return colour === "rgba(0, 0, 0, 0)" ? behind(element.parentElement) : colour;
  };
  const holdsText = (element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  return Math.min(...[...document.body.querySelectorAll("*")].filter(holdsText).map((element) => {
    const both = [light(getComputedStyle(element).color), light(behind(element))];
    return (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
  }));
})()"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture
def proxy(farm: ProxyFarm, sandbox: SandboxClient) -> ProxyProcess:
    return farm.proxy(sandbox.config(upstream={"models": {LONG_NAME: "sandbox-chat", "*": "*"}}))


@pytest.mark.parametrize(("width", "dark"), [(360, False), (1000, True)], ids=["narrow and light", "wide and dark"])
def test_status_page_is_shown_without_an_error_and_is_good_to_read(
    browser: Browser, proxy: ProxyProcess, sandbox: SandboxClient, width: int, dark: bool
) -> None:
    wait_for(lambda: httpx.get(f"{proxy.url}/readyz", trust_env=False).is_success)
    browser.open(f"{proxy.url}/?refresh=off", width=width, dark=dark)
    text = " ".join(browser.evaluate("document.body.innerText").split())
    for fact in ("LLM proxy", "corp", "fresh", "llm", sandbox.url.removeprefix("http://"), LONG_NAME, "0 of at most"):
        assert fact in text
    assert browser.evaluate("document.title") == "Ready · LLM proxy"
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    assert browser.evaluate(CONTRAST) >= 4.5
    is_dark = browser.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0] < 128")
    assert is_dark == dark
    seen = browser.leave()
    assert seen["console"] == []  # refusals by the Content-Security-Policy would stand here too
    assert seen["requests"] == [f"GET {proxy.url}/?refresh=off"]


def test_status_page_renews_itself(browser: Browser, proxy: ProxyProcess) -> None:
    browser.open(f"{proxy.url}/")
    assert browser.evaluate("document.querySelector('meta[http-equiv=refresh]').content") == "5"
    browser.leave()


@pytest.mark.parametrize("path", ["/", "/status", "/metrics"])
def test_page_that_lets_its_own_name_lead_here_reads_no_operations(
    browser: Browser, proxy: ProxyProcess, path: str
) -> None:
    answer = browser.open(f"http://rebound.example.com:{proxy.port}{path}")
    assert answer["status"] == 404
    assert "sandbox" not in browser.evaluate("document.body.innerText")
    browser.leave()
