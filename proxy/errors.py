"""The errors that a caller may see, each with its status and its OpenAI `type` and `code`.

    ProxyError
    ├── RequestError                what the caller sent is at fault
    │   ├── InvalidJson                 400
    │   ├── InvalidRequest              400
    │   ├── InvalidChunks               400
    │   ├── InvalidClientKey            401
    │   ├── ModelNotAllowed             403
    │   ├── ModelNotFound               404
    │   ├── RouteNotFound               404
    │   ├── MethodNotAllowed            405
    │   ├── BodyTimeout                 408
    │   ├── BodyTooLarge                413
    │   └── RateLimitExceeded           429
    ├── ServiceError                what stands behind us is at fault, or we are
    │   ├── InternalError               500
    │   ├── UpstreamUnavailable         502
    │   ├── Overloaded                  503
    │   ├── TokenUnavailable            503
    │   └── UpstreamTimeout             504
    ├── UpstreamAnswer              the upstream's own 4xx or 5xx, which crosses as it is
    └── CallerGone                  nobody is left to answer

Foreign errors become one of these where they enter, once. The texts of ServiceErrors are fixed: RAGFlow sorts errors
by words in their text and gives up on those that speak of keys, formats or quotas, so a cause goes to the log, never
to the caller.
"""

from collections.abc import Sequence

Fields = Sequence[tuple[str, str]]


class ProxyError(Exception):
    """The root: everything that ends a request in another way than with the upstream's good answer."""

    status = 500
    type = "server_error"
    code = "internal_error"
    message = ""
    takes_nobody = False  # nothing was begun: the connection was refused, or the answer is 429 or 503
    # Where a body was not read to its end, nobody knows where the next request begins, or it is far.
    ends_connection = False

    def __init__(
        self, message: str = "", *, param: str | None = None, retry_after_s: float | None = None, cause: str = ""
    ) -> None:
        """`cause` is for the log alone and must hold no secret and no text of a body."""
        super().__init__(message or self.message)
        self.message = message or self.message
        self.param = param
        self.retry_after_s = retry_after_s
        self.cause = cause


class RequestError(ProxyError):
    status = 400
    type = "invalid_request_error"
    code = "invalid_request"


class InvalidJson(RequestError):
    code = "invalid_json"


class InvalidRequest(RequestError):
    pass


class InvalidChunks(RequestError):
    message = "The chunks of the request body cannot be read."
    ends_connection = True


class InvalidClientKey(RequestError):
    status = 401
    type = "authentication_error"
    code = "invalid_api_key"
    # One text for all: what was wrong with a key is nobody's business but its owner's.
    message = "Missing, unknown or expired API key."


class ModelNotAllowed(RequestError):
    status = 403
    type = "permission_error"
    code = "model_not_allowed"


class ModelNotFound(RequestError):
    status = 404
    code = "model_not_found"


class RouteNotFound(RequestError):
    status = 404
    code = "not_found"
    message = "No such route."


class MethodNotAllowed(RequestError):
    status = 405
    code = "method_not_allowed"
    message = "This route does not take that method."


class BodyTimeout(RequestError):
    status = 408
    code = "body_timeout"
    message = "The request body did not arrive in time."
    ends_connection = True


class BodyTooLarge(RequestError):
    status = 413
    code = "body_too_large"
    ends_connection = True


class RateLimitExceeded(RequestError):
    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class ServiceError(ProxyError):
    message = "Upstream service unavailable, please retry."


class InternalError(ServiceError):
    message = "Internal server error, please retry."


class UpstreamUnavailable(ServiceError):
    """The upstream refused the connection, broke it, answered nonsense, or refused a fresh token."""

    status = 502
    code = "upstream_unavailable"


class Overloaded(ServiceError):
    status = 503
    code = "overloaded"
    message = "Service unavailable for the moment, please retry."


class TokenUnavailable(ServiceError):
    """No usable token is to be had now; `retry_after_s` says when the next fetch is due."""

    status = 503
    code = "upstream_unavailable"


class UpstreamTimeout(ServiceError):
    status = 504
    code = "upstream_timeout"
    message = "Upstream service unavailable: no answer in time, please retry."


class UpstreamAnswer(ProxyError):
    """The upstream said no (4xx, 5xx): its status, fields and body (at most 64 KiB) go on to the caller."""

    code = "upstream_error"

    def __init__(self, status: int, fields: Fields, body: bytes) -> None:
        super().__init__(f"the upstream answered {status}")
        self.status = status
        self.takes_nobody = status in (429, 503)
        self.fields = fields
        self.body = body


class CallerGone(ProxyError):
    """The caller closed its connection; the status is for the access line only (nginx's number for it)."""

    status = 499
    code = "caller_gone"
    message = "The caller has gone."


def as_openai_error(error: ProxyError) -> dict[str, dict[str, str | None]]:
    """The error object that the OpenAI SDKs read."""
    return {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}}
