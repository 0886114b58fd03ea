"""gunicorn's worker classes, with one change: a request that gunicorn itself refuses is answered in JSON, and neither
the answer nor the log quotes it, as the bad line may be the one with the key.
"""

import json
from contextlib import suppress
from typing import Any

from gunicorn.http import errors
from gunicorn.workers.ggevent import GeventWorker
from gunicorn.workers.gthread import ThreadWorker
from loguru import logger

from proxy.errors import InvalidRequest, as_openai_error

_STATUSES: tuple[tuple[type[Exception], str], ...] = (
    (errors.LimitRequestLine, "414 URI Too Long"),
    (errors.LimitRequestHeaders, "431 Request Header Fields Too Large"),
    (errors.ExpectationFailed, "417 Expectation Failed"),
    (errors.ParseException, "400 Bad Request"),
)


class _JsonErrors:
    """Mixed into a worker: gunicorn calls handle_error for what went wrong outside of the app."""

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        status = next((line for kind, line in _STATUSES if isinstance(exc, kind)), None)
        if status is None:
            super().handle_error(req, client, addr, exc)  # type: ignore[misc]
            return
        logger.info("request refused: {} ({})", status, type(exc).__name__)
        body = json.dumps(as_openai_error(InvalidRequest("The request is not valid HTTP."))).encode()
        head = f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: application/json\r\n"
        with suppress(OSError):
            client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)


class GeventJsonWorker(_JsonErrors, GeventWorker):  # type: ignore[misc]  # gunicorn has no types
    pass


class ThreadJsonWorker(_JsonErrors, ThreadWorker):  # type: ignore[misc]
    pass
