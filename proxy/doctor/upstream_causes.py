"""Why an upstream refused, in plain words and with what to do. Pure; of its text no more than short identifiers."""

import re
import ssl
from typing import Any

import httpx2
import jiter

from proxy.doctor.causes import connect_cause, tls_cause, tunnel_cause
from proxy.doctor.foreign_text import ForeignText
from proxy.doctor.upstream_client import Answer
from proxy.upstreams.tunnel import TunnelError

# RFC 6750 §3.1.
_CHALLENGE_ERROR = re.compile(r'\berror="?(invalid_request|invalid_token|insufficient_scope)\b')
# Of IANA's registry those that a gateway might ask for; an unknown one may be anything.
_CHALLENGE_SCHEME = re.compile(r"(?i)\s*(Basic|Bearer|Digest|DPoP|Negotiate|GNAP|PrivateToken)\b")


def refusal_cause(answer: Answer, sent_as: str | None, foreign: ForeignText) -> str:
    """Of any status but 2xx. `sent_as`: how the token was sent, without the token; None where none was."""
    said = ", ".join(f"{name} {text}" for name, text in error_codes(answer.body, foreign).items())
    return _advice(answer, sent_as) + (f" (it says {said})" if said else "")


def error_codes(body: bytes, foreign: ForeignText) -> dict[str, str]:
    """`code` and `type` of an OpenAI error object, where they are short identifiers."""
    try:
        document = jiter.from_json(body)
    except ValueError:
        return {}
    error = document.get("error") if isinstance(document, dict) else None
    members: dict[str, Any] = error if isinstance(error, dict) else {}
    shown = {name: foreign.identifier(members.get(name)) for name in ("code", "type")}
    return {name: text for name, text in shown.items() if text is not None}


def transport_cause(error: httpx2.TransportError, host: str) -> str:
    """For a connection that broke, or an answer that did not come or made no sense. The texts are the transport's."""
    cause = error.__cause__
    if isinstance(error, httpx2.ReadTimeout):
        return f"{error}: the upstream is too slow, or hangs"
    if isinstance(error, TunnelError):
        return f"the HTTP proxy: {tunnel_cause(error)}"
    if isinstance(cause, ssl.SSLError):
        return tls_cause(cause, host)
    if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout) and isinstance(cause, OSError):
        return connect_cause(cause)
    return f"{error}: the upstream, or a gateway before it, broke off"


def _advice(answer: Answer, sent_as: str | None) -> str:
    status = answer.status
    if 300 <= status < 400:
        return "it redirects, which is not followed: a login page, or base_url lacks https or the right path"
    if status in (401, 403) and sent_as is None:
        return "the upstream wants a token and none was sent: token_source is null in the config"
    if status in (401, 403):
        return f"the upstream refuses the token, sent as {sent_as}: {_token_advice(answer)}"
    if status == 404:
        return (
            "unknown model or path: see the names in models, and whether base_url ends where /chat/completions begins"
        )
    if status == 429:
        return "the upstream limits how often it is asked; the token was taken"
    if status >= 500:
        return "the upstream, or a gateway before it, failed; nothing to change here"
    if status == 204:
        return "an answer without a body, where one must be"
    return "the upstream understood the request and does not take it"


def _token_advice(answer: Answer) -> str:
    challenge = answer.fields.get("WWW-Authenticate", "")
    code = _CHALLENGE_ERROR.search(challenge)
    scheme = _CHALLENGE_SCHEME.match(challenge)
    if code is not None and code[1] == "insufficient_scope":
        return "insufficient_scope: the token is good and may do too little; see scope and audience of the source"
    if code is not None and code[1] == "invalid_request":
        return "invalid_request: it cannot read the credential; see token_header and token_prefix"
    if scheme is not None and scheme[1].lower() != "bearer":
        return f"it asks for {scheme[1]}; see token_header and token_prefix, and whether this is the right gateway"
    if code is not None:
        return "invalid_token: it is for another audience, from another issuer, or revoked; see the source's settings"
    if answer.status == 403:
        return "the token may not do this; see the client's rights, scope, and whether a header such as an app id lacks"
    return "wrong header or prefix (token_header, token_prefix), or a token for another audience or environment"
