"""What happens around every request, in order: id, client key, limits; then errors as JSON, CORS, the access line.

The views in between raise errors of ours and know nothing of all this.
"""

import re
import socket
import time
import uuid
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from flask import Blueprint, Flask, Response, g, jsonify, request
from loguru import logger
from werkzeug.exceptions import HTTPException
from werkzeug.exceptions import MethodNotAllowed as WerkzeugMethodNotAllowed

from proxy.auth import Caller, ClientKeys
from proxy.errors import (
    BodyTimeout,
    BodyTooLarge,
    CallerGone,
    InternalError,
    InvalidClientKey,
    InvalidRequest,
    MethodNotAllowed,
    ProxyError,
    RouteNotFound,
    ServiceError,
    UpstreamAnswer,
    as_openai_error,
)
from proxy.headers import answer_fields
from proxy.limits import RateLimits, Slots
from proxy.observability.request_log import RequestLog
from proxy.relay import PieceRelay, StreamRelay
from proxy.request_state import RequestState, current

_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
_FIELD_NAMES = re.compile(r"[A-Za-z0-9_, -]{1,1000}")
_CORS_MAX_AGE_S = "600"
_FINISH = "llm_proxy.finish"  # the environ's entry for what must happen at a request's end


class Hooks:
    """Wires the order of things into an app and its blueprints."""

    def __init__(self, keys: ClientKeys, rates: RateLimits, slots: Slots, *, allowed_origins: Sequence[str]) -> None:
        self._keys = keys
        self._rates = rates
        self._slots = slots
        self._origins = frozenset(allowed_origins)

    def install(self, app: Flask) -> None:
        app.wsgi_app = _finishing(app.wsgi_app)  # type: ignore[assignment,method-assign]  # Flask's own way to wrap an app
        app.before_request(self._begin)
        app.after_request(self._end)
        app.register_error_handler(ProxyError, _answer_error)
        app.register_error_handler(HTTPException, _answer_http_exception)
        app.register_error_handler(Exception, _answer_unexpected)

    def guard(self, blueprint: Blueprint) -> None:
        """Let only callers with a client key, a free slot and rate left into this blueprint's views."""
        blueprint.before_request(self._admit)

    def guard_operations(self, blueprint: Blueprint) -> None:
        """Let only callers with an admin key in; no limits, since an operator looks when the proxy is full."""
        blueprint.before_request(self._admit_admin)

    def _begin(self) -> Response | None:
        given = request.headers.get("X-Request-Id", "")
        request_id = given if _SANE_REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        route = request.url_rule.rule if request.url_rule is not None else "-"
        g.state = RequestState(RequestLog(request_id, request.method, route))
        if request.environ["PATH_INFO"].startswith("//"):
            raise RouteNotFound  # werkzeug would drop a slash, and what stands before us may have judged another path
        return self._preflight()

    def _admit(self) -> None:
        caller = self._authenticate()
        self._rates.count(caller)
        self._slots.take(caller)
        current().at_end.append(lambda: self._slots.give_back(caller))

    def _admit_admin(self) -> None:
        if not self._authenticate().admin:
            raise InvalidClientKey

    def _authenticate(self) -> Caller:
        headers = request.headers
        caller = self._keys.authenticate(headers.get("Authorization"), headers.get("api-key"))
        state = current()
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
        if origin is None or not self._origins:
            return None
        if "*" in self._origins:
            return "*"
        return origin if origin.lower() in self._origins else None

    def _end(self, response: Response) -> Response:
        state = current()
        response.headers["X-Request-Id"] = state.log.request_id
        if self._origins:
            response.headers.add("Vary", "Origin")
        origin = self._allowed_origin()
        if origin is not None:
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Expose-Headers"] = "X-Request-Id, Retry-After"
        state.log.status = response.status_code
        body = response.response
        if not isinstance(body, StreamRelay | PieceRelay):
            state.log.first_byte_at = time.monotonic()
        finish = partial(_finish, state, response)
        request.environ[_FINISH] = finish
        response.call_on_close(finish)
        return response


def _finishing(app: WSGIApplication) -> WSGIApplication:
    """The app, whose requests end once even where the server refuses to start an answer and so never closes it."""

    def run(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            return app(environ, start_response)
        except BaseException:
            finish = environ.get(_FINISH)
            if finish is not None:
                finish()
            raise

    return run


def _finish(state: RequestState, response: Response) -> None:
    """After the last byte, or when the caller is gone: what the views left to do, then the access line."""
    if state.finished:
        return
    state.finished = True
    body = response.response
    if isinstance(body, StreamRelay | PieceRelay):
        body.close()
    if isinstance(body, StreamRelay | PieceRelay):
        state.log.outcome = body.end
        state.log.bytes_sent = body.bytes_sent
        state.log.first_byte_at = body.first_byte_at
    else:
        state.log.bytes_sent = response.calculate_content_length() or 0
    while state.at_end:
        state.at_end.pop()()
    state.log.write()


def _answer_error(error: ProxyError) -> Response:
    log = current().log
    log.cause = error.cause
    log.outcome = "error"
    if isinstance(error, UpstreamAnswer):
        return _answer_of_upstream(error)
    if isinstance(error, CallerGone):
        log.outcome = "caller_gone"
    if isinstance(error, BodyTooLarge | BodyTimeout):
        _read_no_further()
    response = jsonify(as_openai_error(error))
    response.status_code = error.status
    if error.retry_after_s is not None:
        response.headers["Retry-After"] = str(max(1, round(error.retry_after_s + 0.5)))
    if isinstance(error, InvalidClientKey):
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _answer_of_upstream(error: UpstreamAnswer) -> Response:
    """The upstream's error as it came; where it is no JSON, one of ours with the same status."""
    fields = answer_fields(error.fields)
    is_json = any(name.lower() == "content-type" and "json" in value.lower() for name, value in fields)
    if is_json and error.body:
        return Response(error.body, status=error.status, headers=fields)
    message = ServiceError.message if error.status >= 500 else f"The upstream answered with status {error.status}."
    ours = ProxyError(message)
    ours.type = "server_error" if error.status >= 500 else "invalid_request_error"
    ours.code = error.code
    response = jsonify(as_openai_error(ours))
    response.status_code = error.status
    response.headers.extend([field for field in fields if field[0].lower() != "content-type"])
    return response


def _answer_http_exception(error: HTTPException) -> Response:
    """werkzeug's own: an unknown path, a wrong method, a head that it cannot read."""
    if isinstance(error, WerkzeugMethodNotAllowed):
        response = _answer_error(MethodNotAllowed())
        response.headers["Allow"] = ", ".join(sorted(error.valid_methods or ()))
        return response
    if error.code is not None and 400 <= error.code < 500 and error.code != 404:
        return _answer_error(InvalidRequest("The request cannot be read."))
    return _answer_error(RouteNotFound())


def _answer_unexpected(error: Exception) -> Response:
    logger.opt(exception=error).error("unexpected {} in a view", type(error).__name__)
    return _answer_error(InternalError(cause=type(error).__name__))


def _read_no_further() -> None:
    """Close the reading half: gunicorn would else read the rest of a refused body, however long it is."""
    sock = request.environ.get("gunicorn.socket")
    if sock is not None:
        with suppress(OSError):  # the caller closed it before
            sock.shutdown(socket.SHUT_RD)
