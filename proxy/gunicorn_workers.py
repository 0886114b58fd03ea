"""gunicorn's worker classes, changed in three ways.

What goes wrong outside of the app is answered in JSON, and neither the answer nor the log quotes the request, as its
bad line may be the one with the key. What gunicorn's parser lets pass although others would read it in another way is
refused. And gevent workers have a loop of their own over a connection's requests, with a limit for each wait.
"""

import json
import re
import threading
import time
from contextlib import suppress
from typing import Any

from gunicorn.http import errors
from gunicorn.workers.ggevent import GeventWorker
from gunicorn.workers.gthread import ThreadWorker
from loguru import logger

from proxy import gunicorn_response
from proxy.caller_source import WRITE_S, CallerSource
from proxy.errors import InternalError, InvalidRequest, ProxyError, as_openai_error
from proxy.gunicorn_request import PlainParser

# What a worker has after its drain to end what still runs, with a line for each; the master kills it then.
ENDING_S = 5
IDLE_GRACE_S = 4  # for callers that are between two requests when a worker ends

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


class _OwnWorker:
    """Mixed into both worker classes; gunicorn calls handle_error for what went wrong outside of the app."""

    cfg: Any

    def init_process(self) -> None:
        settings = {name: setting.get() for name, setting in self.cfg.settings.items()}
        # The worker ends its requests itself, before the master would kill it.
        settings["graceful_timeout"] = max(0, settings["graceful_timeout"] - ENDING_S)
        # gunicorn looks a setting up by name whenever it is asked for one, some twenty times a request.
        self.cfg.__dict__.update(settings)
        super().init_process()  # type: ignore[misc]

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


class GeventJsonWorker(_OwnWorker, GeventWorker):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's, with a loop of our own over a connection's requests: it limits each wait, and has less to do."""

    def run(self) -> None:
        self._sources: set[CallerSource] = set()
        threading.Thread(target=self._end_idle_ones, name="idle-callers", daemon=True).start()
        super().run()

    def _end_idle_ones(self) -> None:
        """After SIGTERM or a reload: gunicorn would wait for kept connections as for requests.

        Not at once: who has a next request on its way is served, and told that it is the last.
        """
        while self.alive:
            time.sleep(1)
        time.sleep(IDLE_GRACE_S)
        while True:  # some become idle only now
            for source in list(self._sources):
                source.end_if_idle()
            time.sleep(1)

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        if self.cfg.is_ssl or self.cfg.proxy_protocol != "off":
            super().handle(listener, client, addr)  # TLS to callers: gunicorn's own loop, and its limits
            return
        client.settimeout(WRITE_S)
        source = CallerSource(client)
        self._sources.add(source)
        try:
            self._serve(source, client, addr)
        except OSError as error:  # too late, or gone
            self.log.debug("connection closed: %s", type(error).__name__)
        except Exception as error:
            self.handle_error(None, client, addr, error)
        finally:
            self._sources.discard(source)
            source.close()
            client.close()

    def _serve(self, source: CallerSource, client: Any, addr: Any) -> None:
        parser, server = PlainParser(self.cfg, source, addr), client.getsockname()
        with suppress(errors.NoMoreData, StopIteration):  # the caller has closed, or HTTP says that we do
            while True:
                source.expect_request(has_begun=parser.unreader.buf.tell() > 0)
                request = next(parser)
                source.expect_body()
                is_last = self._answer(server, request, client, addr)
                if is_last and client.fileno() < 0:
                    return  # closed by gunicorn, after an error behind the head
                # What the app left of the body, until its time is over: to close before would destroy the answer.
                if not parser.finish_body() or is_last:
                    return

    def _answer(self, server: Any, request: Any, client: Any, addr: Any) -> bool:
        """Whether the connection ends with this answer."""
        try:
            # Not gevent's own, which would go on after it was told to end.
            super(GeventWorker, self).handle_request(server, request, client, addr)
        except StopIteration:
            return True
        return False


class ThreadJsonWorker(_OwnWorker, ThreadWorker):  # type: ignore[misc]
    pass
