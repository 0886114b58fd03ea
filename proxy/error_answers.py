"""Errors as the JSON that OpenAI's clients read: ours, the upstream's, werkzeug's, and those that nobody expected."""

import socket
from collections.abc import Iterable
from contextlib import suppress
from wsgiref.types import StartResponse, WSGIEnvironment

from flask import Response, jsonify
from loguru import logger
from werkzeug.exceptions import HTTPException
from werkzeug.exceptions import MethodNotAllowed as WerkzeugMethodNotAllowed

from proxy.caller_source import waits_are_limited
from proxy.errors import (
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
from proxy.lean_flask import LeanResponse
from proxy.request_state import current


class LastResponse(LeanResponse):
    """The last of its connection, and its `Connection` field says so."""

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        # gunicorn drops a `Connection` field that an app sets; start_response is a method of its response.
        force_close = getattr(getattr(start_response, "__self__", None), "force_close", None)
        if force_close is not None:
            force_close()
        return super().__call__(environ, start_response)


def answer_error(error: ProxyError) -> Response:
    log = current().log
    log.cause = error.cause
    log.outcome = "error"
    if isinstance(error, CallerGone):
        log.outcome = "caller_gone"
    response = _answer_of_upstream(error) if isinstance(error, UpstreamAnswer) else _answer_of_ours(error)
    if error.ends_connection:
        _read_no_further()
        LastResponse.force_type(response)  # in place
    return response


def _answer_of_ours(error: ProxyError) -> Response:
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


def answer_http_exception(error: HTTPException) -> Response:
    """werkzeug's own: an unknown path, a wrong method, a head that it cannot read."""
    if isinstance(error, WerkzeugMethodNotAllowed):
        response = answer_error(MethodNotAllowed())
        response.headers["Allow"] = ", ".join(sorted(error.valid_methods or ()))
        return response
    if error.code is not None and 400 <= error.code < 500 and error.code != 404:
        return answer_error(InvalidRequest("The request cannot be read."))
    return answer_error(RouteNotFound())


def answer_unexpected(error: Exception) -> Response:
    logger.opt(exception=error).error("unexpected {} in a view", type(error).__name__)
    return answer_error(InternalError(cause=type(error).__name__))


def _read_no_further() -> None:
    """gunicorn would else read the rest of a refused body, however long it is."""
    environ = current().environ
    sock = environ.get("gunicorn.socket")
    if waits_are_limited.get():
        # The worker discards it. A closed half may leave a caller with no room to send and no word that we are gone.
        environ["wsgi.input"].failed = True
    elif sock is not None:
        with suppress(OSError):  # the caller closed it before
            sock.shutdown(socket.SHUT_RD)
