"""Chromium as the tests use it, and a server of pages for it; both on loopback, and gone when they are closed."""

import json
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.proxy_process import ROOT
from tests.support.recipe import code_of

E2E = ROOT / "tests" / "e2e"
END_WITHIN_S = 20.0
_IMPORTS = {
    "openai": "/node_modules/openai/index.mjs",
    "eventsource-parser/stream": "/node_modules/eventsource-parser/dist/stream.js",
}
_PAGE = f"""<!doctype html><html lang="en"><title>A page</title><link rel="icon" href="data:,">
<script type="importmap">{json.dumps({"imports": _IMPORTS})}</script>
<script type="module" src="/browser_page.mjs"></script>"""


class Browser:
    """One headless Chromium with one page at a time."""

    def __init__(self, folder: Path) -> None:
        """`folder`: where it leaves its profile, should it be killed."""
        chromium = shutil.which("chromium")
        assert chromium is not None, "the package chromium is missing; make test installs it"
        self.folder = folder
        self._errors = (folder / "driver.log").open("w+")
        self._driver = subprocess.Popen(
            ["node", str(E2E / "browser_driver.mjs"), chromium],
            cwd=ROOT,
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(folder), "TMPDIR": str(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self.version = self._answer()["version"]

    def open(self, url: str, **more: Any) -> dict[str, Any]:
        """Open a page; its status and fields. `width` in pixels; `dark`: what the user prefers."""
        return self._do(open=url, **more)

    def evaluate(self, expression: str) -> Any:
        return self._do(evaluate=expression)["value"]

    def call(self, name: str, *words: str) -> Any:
        """What `window.calls` of the page has by that name; raises BrowserError with what it throws."""
        return self._do(call=name, **{"with": words})["value"]

    def screenshot(self, file: Path) -> None:
        self._do(screenshot=str(file))

    def leave(self) -> dict[str, Any]:
        """Close the page, as a user closes a tab: the errors and warnings on its console, and its requests."""
        return self._do(close=True)

    def close(self) -> None:
        assert self._driver.stdin is not None
        self._driver.stdin.close()
        try:
            status = self._driver.wait(END_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._driver.kill()
            status = self._driver.wait()
        assert self._driver.stdout is not None
        self._driver.stdout.close()
        self._errors.close()
        assert status == 0

    def _do(self, **command: Any) -> dict[str, Any]:
        assert self._driver.stdin is not None
        self._driver.stdin.write(json.dumps(command) + "\n")
        self._driver.stdin.flush()
        answer = self._answer()
        if "thrown" in answer:
            raise BrowserError(answer["thrown"])
        return answer

    def _answer(self) -> dict[str, Any]:
        assert self._driver.stdout is not None
        line = self._driver.stdout.readline()
        if not line:
            self._errors.seek(0)
            raise AssertionError(f"the browser has ended:\n{self._errors.read()}")
        return dict(json.loads(line))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class BrowserError(Exception):
    """What the page threw."""


class PageServer:
    """Serves one page whose `window.calls` are those of tests/e2e/browser_page.mjs, and the modules that it imports."""

    def __init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _PageHandler)
        self._server.daemon_threads = False
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        port = self._server.server_port
        # One server, but two origins to a browser.
        self.origin, self.other_origin = f"http://127.0.0.1:{port}", f"http://localhost:{port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _PageHandler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        content = _content(self.path)
        self.send_response(404 if content is None else 200)
        self.send_header("Content-Type", "text/html" if self.path == "/" else "text/javascript")
        self.end_headers()
        self.wfile.write((content or "").encode())

    def log_message(self, format: str, *words: Any) -> None:  # noqa: A002  # its name in the base class
        """Say nothing."""


def _content(path: str) -> str | None:
    if path == "/":
        return _PAGE
    if path.startswith("/recipe"):
        with_fetch, as_events, with_client = code_of("browser", "js")
        return with_client if path == "/recipe_client.mjs" else with_fetch + as_events
    file = (ROOT if path.startswith("/node_modules/") else E2E) / path[1:]
    return file.read_text() if file.is_file() else None
