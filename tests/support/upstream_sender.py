"""The transport to upstreams as its tests use it: one short call per request, and nothing left open."""

import httpx2

from proxy.upstreams.answer_body import AnswerBody, Timeouts
from proxy.upstreams.exchange import Exchange
from proxy.upstreams.tls import ClientTls
from proxy.upstreams.transport import SocketTransport


class Sender:
    def __init__(self, url: str, timeouts: Timeouts, tls: ClientTls | None = None) -> None:
        self.transport = SocketTransport(httpx2.URL(url), tls=tls, timeouts=timeouts)
        self._url = url
        self._bodies: list[AnswerBody] = []

    def send(self, method: str = "POST", content: bytes = b"{}", exchange: Exchange | None = None) -> AnswerBody:
        """The body of the answer, once its head is here."""
        body: AnswerBody = self.response(method, content, exchange).extensions["answer_body"]
        return body

    def response(
        self, method: str = "POST", content: bytes = b"{}", exchange: Exchange | None = None
    ) -> httpx2.Response:
        url = f"{self._url}/v1/chat"
        request = httpx2.Request(method, url, content=content, extensions={"exchange": exchange})
        response = self.transport.handle_request(request)
        self._bodies.append(response.extensions["answer_body"])
        return response

    def fetch(self, method: str = "POST") -> bytes:
        """Send, and read the body to its end."""
        return b"".join(self.send(method))

    def close(self) -> None:
        for body in self._bodies:
            body.close()
        self.transport.close()
