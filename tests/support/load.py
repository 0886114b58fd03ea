"""Requests from several threads at once, for as long as the test needs them."""

import threading
import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import httpx

from tests.support.proxy_process import ProxyProcess

BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}


def ask_at_once(proxy: ProxyProcess, count: int) -> list[int]:
    """The statuses of that many requests, each on a connection of its own and all at once, so that all workers work."""
    statuses: list[int] = []
    threads = [threading.Thread(target=lambda: statuses.append(_ask(proxy))) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return statuses


class Load:
    """Each thread asks one proxy after the other, from the start of the `with` to its end; `statuses` counts."""

    def __init__(self, proxies: Sequence[ProxyProcess], *, threads: int = 4, pause_s: float = 0.02) -> None:
        self.statuses: Counter[int] = Counter()
        self._proxies = proxies
        self._pause_s = pause_s
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._repeat) for _ in range(threads)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def run(self, seconds: float) -> None:
        time.sleep(seconds)

    def _repeat(self) -> None:
        while not self._stopped.is_set():
            for proxy in self._proxies:
                status = _ask(proxy)
                with self._lock:
                    self.statuses[status] += 1
                time.sleep(self._pause_s)


def _ask(proxy: ProxyProcess) -> int:
    # A connection for each: so every worker gets some, and a restarted proxy leaves no dead one behind.
    return httpx.post(f"{proxy.url}/v1/chat/completions", json=BODY, trust_env=False, timeout=30).status_code
