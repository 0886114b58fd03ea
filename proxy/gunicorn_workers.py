"""gunicorn's worker classes, changed in three ways.

What goes wrong outside of the app is answered in JSON, and neither the answer nor the log quotes the request, as its
bad line may be the one with the key. gevent workers have a loop of their own over a connection's requests, with a limit
for each wait. And workers with threads wait for no caller in the one loop that all share, and end as the others do.
"""

import errno
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from gunicorn.http import errors
from gunicorn.workers.ggevent import GeventWorker
from gunicorn.workers.gthread import ThreadWorker
from loguru import logger

from proxy import gunicorn_body, gunicorn_response
from proxy.caller_source import WRITE_S, CallerSource, waits_are_limited
from proxy.errors import InternalError, InvalidRequest, ProxyError, as_openai_error
from proxy.gunicorn_master import HELD_BACK
from proxy.gunicorn_request import PlainParser
from proxy.gunicorn_response import LEFT_MOST_BYTES

# What a worker has after its drain to end what still runs, with a line for each; the master kills it then.
ENDING_S = 5
NO_DESCRIPTOR_PAUSE_S = 0.1
# With threads: for what the app left of a body, before the connection ends instead.
UNREAD_BODY_S = 5
UNREAD_BODY_MOST_BYTES = 32 * 1024 * 1024
CROWDED_SHARE = 0.9  # of the connections that a worker takes; /healthz must get in
IDLE_GRACE_S = 4  # for callers that are between two requests when a worker ends

gunicorn_body.install()
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


class _OwnWorker:
    """Mixed into both worker classes; gunicorn calls handle_error for what went wrong outside of the app."""

    cfg: Any
    wsgi: Any
    leaves_s = ENDING_S  # of the master's time for a worker: it ends its requests before it would be killed

    def init_process(self) -> None:
        settings = {name: setting.get() for name, setting in self.cfg.settings.items()}
        settings["graceful_timeout"] = max(0, settings["graceful_timeout"] - self.leaves_s)
        # gunicorn looks a setting up by name whenever it is asked for one, some twenty times a request.
        self.cfg.__dict__.update(settings)
        super().init_process()  # type: ignore[misc]

    def init_signals(self) -> None:
        super().init_signals()  # type: ignore[misc]
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_BACK)

    def handle_error(self, _req: Any, client: Any, _addr: Any, exc: BaseException) -> None:
        status = next(line for kind, line in _STATUSES if isinstance(exc, kind))
        request_id = os.urandom(16).hex()  # nothing of such a request is to be believed
        is_refused = not status.startswith("5")  # before the app; of the others the app tells by itself
        error: ProxyError = InvalidRequest("The request is not valid HTTP.") if is_refused else InternalError()
        if not is_refused:
            logger.opt(exception=exc).error("unexpected {} outside of the app ({})", type(exc).__name__, request_id)
        body = json.dumps(as_openai_error(error)).encode()
        head = f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: application/json\r\n"
        head += f"X-Request-Id: {request_id}\r\nContent-Length: {len(body)}\r\n\r\n"
        with suppress(OSError):
            client.sendall(head.encode() + body)
        if is_refused:
            self.wsgi.extensions["llm_proxy"].tell_refused(request_id, int(status[:3]), type(exc).__name__, len(body))


class GeventJsonWorker(_OwnWorker, GeventWorker):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's, with a loop of our own over a connection's requests: it limits each wait, and has less to do."""

    def run(self) -> None:
        self._sources: set[CallerSource] = set()
        threading.Thread(target=self._end_idle_ones, name="idle-callers", daemon=True).start()
        super().run()

    def _end_idle_ones(self) -> None:
        """Where so many are open that nobody new would get in; and after SIGTERM or a reload, when gunicorn would wait
        for kept connections as for requests.

        Then not at once: who has a next request on its way is served, and told that it is the last.
        """
        while self.alive:
            time.sleep(1)
            if len(self._sources) > self.cfg.worker_connections * CROWDED_SHARE:
                self._end_those_idle()
        time.sleep(IDLE_GRACE_S)
        while True:  # some become idle only now
            self._end_those_idle()
            time.sleep(1)

    def _end_those_idle(self) -> None:
        for source in list(self._sources):
            source.end_if_idle()

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        if self.cfg.is_ssl or self.cfg.proxy_protocol != "off":
            super().handle(listener, client, addr)  # TLS to callers: gunicorn's own loop, and its limits
            return
        client.settimeout(WRITE_S)
        waits_are_limited.set(True)
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
                if not _is_read_to_end(lambda: parser.finish_body(max_bytes=LEFT_MOST_BYTES)):
                    self._linger(source, client)
                    return
                if is_last:
                    return

    def _linger(self, source: CallerSource, client: Any) -> None:
        """To close while the caller still sends would destroy the answer; to read it as HTTP would cost too much."""
        client.shutdown(socket.SHUT_WR)
        source.discard()

    def _answer(self, server: Any, request: Any, client: Any, addr: Any) -> bool:
        """Whether the connection ends with this answer."""
        try:
            # Not gevent's own, which would go on after it was told to end.
            super(GeventWorker, self).handle_request(server, request, client, addr)
        except StopIteration:
            return True
        return False


class ThreadJsonWorker(_OwnWorker, ThreadWorker):  # type: ignore[misc]
    """gunicorn's, which waits for no caller in its one loop, and ends as the other class does."""

    leaves_s = 1  # the loop still closes the connections whose requests are broken off at the end of the drain

    def handle(self, conn: Any) -> Any:
        """Close the connection here, in a thread of the pool: gunicorn's loop, which all connections share, would wait
        up to 2 s for each caller that does not close its end."""
        stays = super().handle(conn)
        if not stays:
            conn.close(graceful=True)
            conn.close = _is_closed
        return stays

    def handle_request(self, req: Any, conn: Any) -> Any:
        """A caller that never reads has its line from the app; gunicorn would add a traceback."""
        try:
            return super().handle_request(req, conn)
        except TimeoutError:
            return False

    def set_accept_enabled(self, enabled: bool) -> None:
        """At the worker's end, close the listeners: the system would go on taking connections that nobody serves."""
        super().set_accept_enabled(enabled)
        if not enabled and not self.alive:
            for listener in self.sockets:
                listener.close()
            end = threading.Timer(self.cfg.graceful_timeout + self.leaves_s - ENDING_S, self._break_off_what_runs)
            end.daemon = True
            end.start()

    def _break_off_what_runs(self) -> None:
        """Threads cannot be ended as greenlets are; what they wait for can."""
        parts = self.wsgi.extensions["llm_proxy"]
        for part in (*parts.holders.values(), *parts.upstreams.values()):
            part.close()

    def accept(self, listener: Any) -> None:
        """Without a descriptor to accept with, wait for one: gunicorn's would end the worker and all its requests."""
        try:
            super().accept(listener)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            time.sleep(NO_DESCRIPTOR_PAUSE_S)

    def _keepalive_after(self, conn: Any, keepalive: bool) -> bool:
        # The caller has been told that the connection stays; gunicorn's own would give up after 64 KiB.
        until = time.monotonic() + UNREAD_BODY_S
        return keepalive and _is_read_to_end(lambda: conn.parser.finish_body(until, UNREAD_BODY_MOST_BYTES))


def _is_closed(graceful: bool = False) -> None:
    """Stands for the close() of a connection that is closed."""


def _is_read_to_end(finish_body: Callable[[], bool]) -> bool:
    """Whether a next request can follow. Bad chunks end the connection: their request has been answered, and the
    error's own answer would pass for the next one's."""
    try:
        return finish_body()
    except errors.ParseException:
        return False
