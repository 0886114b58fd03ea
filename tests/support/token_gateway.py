"""A proxy with several token sources in front of one upstream that takes any token and keeps what came."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.support.proxy_process import ProxyProcess
from tests.support.scripted_upstream import ScriptedUpstream

_ANSWER = b'{"id":"1","object":"chat.completion","choices":[]}'
_MESSAGES = [{"role": "user", "content": "Hello"}]


class TokenGateway:
    """Each source has an upstream of its own name, which serves the model of that name."""

    def __init__(self, proxy: ProxyProcess, upstream: ScriptedUpstream) -> None:
        self._proxy = proxy
        self._upstream = upstream

    def chat(self, source: str, *statuses: int) -> httpx.Response:
        """A chat completion with a token of this source; the upstream answers one request with each status."""
        for status in statuses:
            head = f"HTTP/1.1 {status} Status\r\nContent-Type: application/json\r\nContent-Length: {len(_ANSWER)}"
            self._upstream.answer(f"{head}\r\n\r\n".encode() + _ANSWER)
        body = {"model": source, "messages": _MESSAGES}
        return httpx.post(f"{self._proxy.api}/chat/completions", json=body, trust_env=False, timeout=30)

    def tokens(self) -> list[str]:
        """The bearer tokens that came upstream, oldest first."""
        lines = [line for request in self._upstream.requests for line in request.head.decode("latin-1").split("\r\n")]
        return [line.split(" ")[2] for line in lines if line.lower().startswith("authorization: bearer ")]

    def errors(self, source: str) -> list[str]:
        """The ERROR lines about this source."""
        return [line for line in self.log().splitlines() if "ERROR" in line and f"token source {source}:" in line]

    def log(self) -> str:
        return self._proxy.log()


@contextmanager
def token_gateway(sources: dict[str, Any], folder: Path) -> Iterator[TokenGateway]:
    with ScriptedUpstream() as upstream:
        upstreams = [
            {"name": name, "base_url": f"{upstream.url}/v1", "token_source": name, "models": {name: "m"}}
            for name in sources
        ]
        server = {"workers": 1, "drain_s": 5}
        proxy = ProxyProcess.start({"server": server, "token_sources": sources, "upstreams": upstreams}, folder)
        try:
            yield TokenGateway(proxy, upstream)
        finally:
            proxy.stop()
