"""An upstream's good answer as the views and relays see it, with errors of ours."""

import time
from contextlib import suppress

import httpx2

from proxy.errors import UpstreamUnavailable
from proxy.upstreams.answer_body import AnswerBody
from proxy.upstreams.exchange import Exchange
from proxy.upstreams.sdk_errors import translate_error

WHOLE_MOST_BYTES = 64 * 1024 * 1024
WHOLE_READ_BYTES = 8 * 1024 * 1024


class Answer:
    """An upstream's good answer: its head, and the body to be read piece by piece and then closed."""

    __slots__ = ("_body", "_exchange", "fields", "status")

    def __init__(self, body: AnswerBody, exchange: Exchange) -> None:
        self.status = body.status
        self.fields = body.fields
        self._body = body
        self._exchange = exchange

    def read(self, wait_s: float | None = None, at_least: int = 1) -> bytes | None:
        """The next bytes of the body; b"" at its end, None when nothing came within wait_s.

        `at_least` so many, or all that is left.
        Raises UpstreamTimeout, UpstreamUnavailable (cut short) or CallerGone; the body is closed then.
        """
        try:
            return self._body.read(wait_s, at_least)
        except httpx2.HTTPError as error:
            raise translate_error(error, self._exchange) from error

    def finish(self, wait_s: float) -> None:
        """Read what may be left after the part that mattered, so that the connection can be kept; then close."""
        until = time.monotonic() + wait_s
        with suppress(httpx2.HTTPError):  # closed by read()
            while time.monotonic() < until and self._body.read(wait_s):
                pass
        self._body.close()

    def close(self) -> None:
        self._body.close()


def read_whole(body: Answer) -> bytes:
    """The whole body, which is to be changed on its way. Raises UpstreamUnavailable past 64 MiB."""
    held = bytearray()
    try:
        while data := body.read(at_least=WHOLE_READ_BYTES):
            held += data
            if len(held) > WHOLE_MOST_BYTES:
                raise UpstreamUnavailable(cause=f"an answer of more than {WHOLE_MOST_BYTES} bytes")
        return bytes(held)
    finally:
        body.close()
