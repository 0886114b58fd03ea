"""gunicorn's worker classes, with one change: what goes wrong outside of the app is answered in JSON, and neither the
answer nor the log quotes the request, as its bad line may be the one with the key.

Besides, what gunicorn's parser lets pass although others would read it in another way.
"""

import json
import re
from contextlib import suppress
from typing import Any

from gunicorn.http import errors
from gunicorn.workers.ggevent import GeventWorker
from gunicorn.workers.gthread import ThreadWorker
from loguru import logger

from proxy import gunicorn_response
from proxy.caller_source import CallerSource
from proxy.errors import InternalError, InvalidRequest, ProxyError, as_openai_error
from proxy.gunicorn_request import PlainParser

UNREAD_MOST_BYTES = 64 * 1024  # of a body that the app left, before the connection is closed instead

gunicorn_response.install()

# The first that fits. A field that the app tried to send is a fault of ours, though gunicorn calls it a parse error.
_STATUSES: tuple[tuple[type[BaseException], str], ...] = (
    (errors.InvalidResponseHeader, "500 Internal Server Error"),
    (errors.InvalidResponseHeaderName, "500 Internal Server Error"),
    (errors.LimitRequestLine, "414 URI Too Long"),
    (errors.LimitRequestHeaders, "431 Request Header Fields Too Large"),
    (errors.ExpectationFailed, "417 Expectation Failed"),
    (errors.ParseException, "400 Bad Request"),
    (BaseException, "500 Internal Server Error"),
)


# RFC 9112 §3.2, RFC 3986 §3.2.2: a name or an address, and a port.
_HOST = re.compile(r"(?:[A-Za-z0-9._~%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")


def check_head(req: Any) -> None:
    """Refuse a request whose head is ambiguous; gunicorn calls it before the app. Raises gunicorn's ParseExceptions."""
    if req.version not in ((1, 0), (1, 1)):
        raise errors.InvalidHTTPVersion(req.version)
    hosts = [value for name, value in req.headers if name == "HOST"]
    if len(hosts) > 1 or (not hosts and req.version == (1, 1)) or not all(map(_HOST.fullmatch, hosts)):
        raise errors.InvalidHeader("HOST")
    codings = [value.strip().lower() for name, value in req.headers if name == "TRANSFER-ENCODING"]
    if codings not in ([], ["chunked"]):
        raise errors.UnsupportedTransferCoding("only chunked")


class _JsonErrors:
    """Mixed into a worker: gunicorn calls handle_error for what went wrong outside of the app."""

    def handle_error(self, _req: Any, client: Any, _addr: Any, exc: BaseException) -> None:
        status = next(line for kind, line in _STATUSES if isinstance(exc, kind))
        error: ProxyError = InvalidRequest("The request is not valid HTTP.")
        if status.startswith("5"):
            error = InternalError()
            logger.opt(exception=exc).error("unexpected {} outside of the app", type(exc).__name__)
        else:
            logger.info("request refused: {} ({})", status, type(exc).__name__)
        body = json.dumps(as_openai_error(error)).encode()
        head = f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: application/json\r\n"
        with suppress(OSError):
            client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)


class GeventJsonWorker(_JsonErrors, GeventWorker):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's, with a loop of our own over a connection's requests: it limits each wait, and has less to do."""

    def init_process(self) -> None:
        # gunicorn looks a setting up by name whenever it is asked for one, some twenty times a request.
        self.cfg.__dict__.update({name: setting.get() for name, setting in self.cfg.settings.items()})
        super().init_process()

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        if self.cfg.is_ssl or self.cfg.proxy_protocol != "off":
            super().handle(listener, client, addr)
            return
        client.setblocking(True)
        source = CallerSource(client)
        try:
            self._serve(source, listener.getsockname(), client, addr)
        except OSError as error:  # too late, or gone
            self.log.debug("connection closed: %s", type(error).__name__)
        except Exception as error:
            self.handle_error(None, client, addr, error)
        finally:
            source.close()
            client.close()

    def _serve(self, source: CallerSource, server: Any, client: Any, addr: Any) -> None:
        parser = PlainParser(self.cfg, source, addr)
        with suppress(errors.NoMoreData, StopIteration):  # the caller has closed, or HTTP says that we do
            while True:
                source.expect_request()
                request = next(parser)
                source.expect_body()
                self.handle_request(server, request, client, addr)
                if not parser.finish_body(max_bytes=UNREAD_MOST_BYTES):
                    return


class ThreadJsonWorker(_JsonErrors, ThreadWorker):  # type: ignore[misc]
    pass
