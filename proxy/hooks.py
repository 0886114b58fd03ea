"""What happens around every request, in order: id, client key, span, limits; then CORS, the access line, the counts.

The views in between raise errors of ours and know nothing of all this; `error_answers` makes answers of those.
"""

import os
import re
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from flask import Blueprint, Flask, Response, request
from loguru import logger
from werkzeug.exceptions import HTTPException

from proxy.auth import Caller, ClientKeys
from proxy.error_answers import answer_error, answer_http_exception, answer_unexpected
from proxy.errors import InvalidClientKey, ProxyError, RouteNotFound
from proxy.lean_flask import Finishing
from proxy.limits import RateLimits, Slots
from proxy.observability.logging import redact
from proxy.observability.metrics import Metrics
from proxy.observability.request_log import AccessLog, RequestLog
from proxy.relay import PieceRelay, StreamRelay
from proxy.request_state import RequestState, begin, current

if TYPE_CHECKING:
    from proxy.observability.tracing import Tracing

_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
_FIELD_NAMES = re.compile(r"[A-Za-z0-9_, -]{1,1000}")
_CORS_MAX_AGE_S = "600"
_FINISH = "llm_proxy.finish"  # the environ's entry for what must happen at a request's end


class Hooks:
    """Wires the order of things into an app and its blueprints."""

    def __init__(
        self,
        keys: ClientKeys,
        rates: RateLimits,
        slots: Slots,
        access_log: AccessLog,
        metrics: Metrics,
        *,
        paths: Sequence[str],
        allowed_origins: Sequence[str],
        tracing: "Tracing | None" = None,
    ) -> None:
        """`paths`: what may stand before a route, such as `/v1`; `allowed_origins`: for browsers (CORS)."""
        self.guarded: set[str] = set()  # names of blueprints
        self.guarded_operations: set[str] = set()
        self._access_log = access_log
        self._metrics = metrics
        self._paths = sorted(paths, key=len, reverse=True)
        self._routes: dict[str, str] = {}
        self._keys = keys
        self._rates = rates
        self._slots = slots
        self._origins = frozenset(allowed_origins)
        self._tracing = tracing

    def install(self, app: Flask) -> None:
        app.wsgi_app = _finishing(app.wsgi_app)  # type: ignore[assignment,method-assign]  # Flask's own way to wrap an app
        app.before_request(self._begin)
        app.after_request(self._end)
        app.register_error_handler(ProxyError, answer_error)
        app.register_error_handler(HTTPException, answer_http_exception)
        app.register_error_handler(Exception, answer_unexpected)

    def guard(self, blueprint: Blueprint) -> None:
        """Let only callers with a client key, a free slot and rate left into this blueprint's views."""
        blueprint.before_request(self._admit)
        self.guarded.add(blueprint.name)

    def guard_operations(self, blueprint: Blueprint) -> None:
        """Let only callers with an admin key in; no limits, since an operator looks when the proxy is full."""
        blueprint.before_request(self._admit_admin)
        self.guarded_operations.add(blueprint.name)

    def tell_refused(self, request_id: str, status: int, cause: str, bytes_sent: int) -> None:
        """Write and count a request that the server answered by itself, as its head could not be read."""
        log = RequestLog(request_id, "-", "-", status=status, outcome="error", cause=cause, bytes_sent=bytes_sent)
        log.first_byte_at = log.started
        self._metrics.request_began()
        self._access_log.write(log)
        self._count(log)

    def _begin(self) -> Response | None:
        environ, rule = request.environ, request.url_rule
        given = environ.get("HTTP_X_REQUEST_ID", "")
        request_id = given if _is_sane(given) else os.urandom(16).hex()
        route = rule.rule if rule is not None else "-"
        state = RequestState(environ, RequestLog(request_id, environ["REQUEST_METHOD"], route))
        begin(state)
        self._metrics.request_began()
        environ[_FINISH] = partial(self._finish, state, None)  # if no answer is ever made of it
        if environ["PATH_INFO"].startswith("//") or _hides_a_slash(environ["RAW_URI"], route):
            raise RouteNotFound  # werkzeug would take it for the route, and what stands before us for another path
        return self._preflight() if self._origins else None

    def _admit(self) -> None:
        caller = self._authenticate()
        if self._tracing is not None:
            # Not before: a stranger would decide what is recorded, and push the spans of others out.
            state = current()
            state.at_end.append(self._tracing.begin(state.environ, state.log))
        self._slots.take(caller)
        current().at_end.append(lambda: self._slots.give_back(caller))
        self._rates.count(caller)  # last: what is refused for want of a slot costs no rate

    def _admit_admin(self) -> None:
        if not self._authenticate().admin:
            raise InvalidClientKey

    def _authenticate(self) -> Caller:
        state = current()
        environ = state.environ
        caller = self._keys.authenticate(environ.get("HTTP_AUTHORIZATION"), environ.get("HTTP_API_KEY"))
        state.caller = caller
        state.log.caller = caller.label
        return caller

    def _preflight(self) -> Response | None:
        """The answer to a browser's question before a request from another origin, where that origin is allowed."""
        asks = request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
        if not asks or self._allowed_origin() is None:
            return None
        response = Response(status=204)
        response.headers["Access-Control-Allow-Methods"] = "GET, POST, OPTIONS"
        asked = request.headers.get("Access-Control-Request-Headers", "")
        if _FIELD_NAMES.fullmatch(asked):
            response.headers["Access-Control-Allow-Headers"] = asked
        response.headers["Access-Control-Max-Age"] = _CORS_MAX_AGE_S
        return response

    def _allowed_origin(self) -> str | None:
        origin = request.headers.get("Origin")
        if origin is None:
            return None
        if "*" in self._origins:
            return "*"
        return origin if origin.lower() in self._origins else None

    def _end(self, response: Response) -> Response:
        state = current()
        response.headers["X-Request-Id"] = state.log.request_id
        if self._origins:
            self._allow_origin(response)
        state.log.status = response.status_code
        body = response.response
        if not isinstance(body, StreamRelay | PieceRelay):
            state.log.first_byte_at = time.monotonic()
            state.log.bytes_sent = response.content_length or 0
        finish = partial(self._finish, state, body)
        state.environ[_FINISH] = finish
        # Nothing stands between the body and gunicorn: each layer would cost on every frame.
        response.response = Finishing(body, finish)
        response.direct_passthrough = True
        return response

    def _allow_origin(self, response: Response) -> None:
        response.headers.add("Vary", "Origin")
        origin = self._allowed_origin()
        if origin is not None:
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Expose-Headers"] = "X-Request-Id, Retry-After"

    def _finish(self, state: RequestState, body: object, *, is_fault: bool = False) -> None:
        """After the last byte, or when the caller is gone: what the views left to do, the access line, the counts."""
        if state.finished:
            return
        state.finished = True
        state.environ.pop(_FINISH, None)  # it leads here: a circle that Python's search would have to find
        if state.log.status == 0:
            state.log.outcome = "cut"  # ended by the worker, before there was an answer
        try:
            if isinstance(body, StreamRelay | PieceRelay):
                self._close(body, state.log)
            if is_fault:  # the server answers by itself
                state.log.status, state.log.outcome, state.log.bytes_sent = 500, "error", 0
        finally:
            _run_all(state.at_end)
            self._access_log.write(state.log)
            self._count(state.log)

    def _close(self, body: StreamRelay | PieceRelay, log: RequestLog) -> None:
        log.outcome, log.bytes_sent, log.first_byte_at = body.end, body.bytes_sent, body.first_byte_at
        if isinstance(body, StreamRelay):
            log.frames, log.usage = body.frames, body.usage()
            self._metrics.stream_ended(body.end)
        body.close()

    def _count(self, log: RequestLog) -> None:
        self._metrics.request_ended(
            self._route_of(log.route),
            log.upstream,
            log.status,
            seconds=time.monotonic() - log.started,
            first_byte_s=None if log.first_byte_at is None else log.first_byte_at - log.started,
            overhead_s=log.overhead_s(),
        )
        if log.usage is not None:
            self._metrics.tokens_used(log.upstream, *log.usage)
        if log.failed_over_from is not None:
            self._metrics.failed_over(log.failed_over_from)

    def _route_of(self, rule: str) -> str:
        """The route without what may stand before it: there are too many ways to ask for the same."""
        route = self._routes.get(rule)
        if route is None:
            before = next((path for path in self._paths if rule.startswith(f"{path}/")), "")
            route = self._routes[rule] = rule.removeprefix(before)
        return route


def _is_sane(request_id: str) -> bool:
    """Whether a caller's id may stand in the log and the answer: a key that was put there by mistake may not."""
    return _SANE_REQUEST_ID.fullmatch(request_id) is not None and redact(request_id) == request_id


def _hides_a_slash(target: str, route: str) -> bool:
    """Whether a slash of the route came as `%2F`; one in a variable behind it is right (RFC 3986 §2.2)."""
    path = target.partition("?")[0].lower() if "%" in target else ""
    return "%2f" in path and route.partition("<")[0].lower() not in path


def _run_all(calls: list[Callable[[], None]]) -> None:
    """The last one first; one that fails keeps neither the others nor the access line and the counts from coming."""
    while calls:
        try:
            calls.pop()()
        except Exception as error:
            logger.opt(exception=error).error("unexpected {} at a request's end", type(error).__name__)


def _finishing(app: WSGIApplication) -> WSGIApplication:
    """The app, whose requests end once even where the server refuses to start an answer and so never closes it."""

    def run(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            return app(environ, start_response)
        except BaseException as error:
            finish = environ.get(_FINISH)
            if finish is not None:
                finish(is_fault=isinstance(error, Exception))
            raise

    return run
