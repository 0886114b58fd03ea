"""The errors of the SDK and of httpx2 as ours: the only place where theirs are told apart."""

import httpx2
from openai import APIStatusError, APITimeoutError

from proxy.errors import CallerGone, ProxyError, UpstreamAnswer, UpstreamTimeout, UpstreamUnavailable
from proxy.headers import Fields
from proxy.upstreams.answer_body import ERROR_BODY_MOST_BYTES, AnswerBody
from proxy.upstreams.exchange import Exchange
from proxy.upstreams.request_builder import says_invalid_token
from proxy.upstreams.tunnel import TunnelError


def status_error(response: httpx2.Response) -> APIStatusError:
    """The SDK's own reads the body as text for its message, which nobody sees, and fails on an odd charset."""
    return APIStatusError("error status", response=response, body=None)


def translate_error(error: Exception, exchange: Exchange | None = None) -> ProxyError:
    """Ours for one of the SDK's or httpx2's."""
    if exchange is not None and exchange.broken_off:
        return CallerGone()
    if isinstance(error, APIStatusError):
        return _translate_status(error.response)
    source = error.__cause__ or error
    # The text of a TunnelError is a status and no more; others may quote what was sent.
    cause = str(source) if isinstance(source, TunnelError) else type(source).__name__
    if isinstance(error, APITimeoutError | httpx2.TimeoutException):
        return UpstreamTimeout(cause=cause)
    unavailable = UpstreamUnavailable(cause=cause)
    unavailable.takes_nobody = isinstance(source, httpx2.ConnectError) and _was_refused(source)
    return unavailable


def _was_refused(error: BaseException) -> bool:
    """Whether that is what lies under it; of several addresses all were tried, and one that refuses is there."""
    if isinstance(error, BaseExceptionGroup):
        return any(map(_was_refused, error.exceptions))  # the others cannot be reached: IPv6 where there is none
    below = error.__cause__ or error.__context__
    return isinstance(error, ConnectionRefusedError) or (below is not None and _was_refused(below))


def _fields_of(response: httpx2.Response) -> Fields:
    """The fields as Latin-1, HTTP's own reading; httpx2 would guess at UTF-8, which cannot be sent on."""
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers.raw]


def _translate_status(response: httpx2.Response) -> ProxyError:
    status = response.status_code
    if status < 400 or status == 401 or says_invalid_token(response):
        # A redirect is not followed, and a refused token is ours: neither means anything to the caller.
        return UpstreamUnavailable(cause=f"the upstream answered {status}")
    # Of a body past the limit only a part was read, and half a JSON text is of no use to anyone.
    is_whole = len(response.content) <= ERROR_BODY_MOST_BYTES and not _is_cut(response)
    return UpstreamAnswer(status, _fields_of(response), response.content if is_whole else b"")


def _is_cut(response: httpx2.Response) -> bool:
    body: AnswerBody | None = response.extensions.get("answer_body")
    return body is not None and body.is_cut  # the async client's transport has no limit of its own
