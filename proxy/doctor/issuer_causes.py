"""Why a token endpoint gave no token, in plain words and with what to do. Pure; quotes nothing of a reply."""

import re

from proxy.tokens.sources.endpoint import Reply
from proxy.tokens.sources.oauth_error import error_code

_CODES = {
    # RFC 6749 §5.2
    "invalid_request": "a member of the request is missing or wrong: see the issuer's docs",
    "invalid_client": "the issuer does not know the client, or the secret or auth_method is wrong",
    "invalid_grant": "what was to be exchanged is invalid, expired or not for this client",
    "unauthorized_client": "the issuer knows the client and does not let it use this grant: ask its owners",
    "unsupported_grant_type": "the issuer does not have this grant: another token URL, or another type of source",
    "invalid_scope": "the scope is unknown, malformed or not granted to this client",
    # RFC 8707 §2, RFC 9396 §5, RFC 9449 §5 and §8, and RFC 6749 §4.1.2.1, whose codes issuers use here too
    "invalid_target": "the audience or resource is unknown or not granted to this client",
    "invalid_authorization_details": "authorization_details, which can be set in fields, are missing or wrong",
    "use_dpop_nonce": "the issuer wants DPoP proofs, which are not made here",
    "invalid_dpop_proof": "the issuer wants DPoP proofs, which are not made here",
    "access_denied": "the issuer denies the client access: ask its owners",
    "server_error": "the issuer itself failed",
    "temporarily_unavailable": "the issuer is overloaded or being serviced",
}
_HTML = re.compile(rb"(?i)\s*<(!doctype|html|head|body|\?xml)")
_STATUSES = {
    400: "the issuer does not take the request",
    401: "the issuer refuses the credentials",
    403: "the issuer refuses the credentials, or this host's address",
    404: "nothing is at that path: the URL is wrong",
    405: "the path does not take this method: see method in the config",
    415: "the issuer wants another kind of body: form instead of json, or the other way round",
    429: "the issuer gets too many requests",
}


def no_reply_cause(text: str) -> str:
    """For the text of a TokenFetchError; empty where that says all."""
    if "deadline" in text or "Timeout" in text:
        return ": the issuer is too slow or hangs; the proxy gives up at the same point"
    if "[SSL: " in text and "ALERT" in text:
        return ": it refuses this client after the handshake, mostly for want of a client_cert that it knows"
    if "RemoteProtocolError" in text:
        return ": it closed the connection before a whole answer, or does not speak HTTP there"
    return ""


def status_cause(reply: Reply) -> str:
    """For any status but 2xx."""
    if 300 <= reply.status < 400:
        return "it redirects, which is not followed: a login page, or the URL lacks https or the right path"
    refusal = oauth_error(reply)
    if refusal is not None:
        return refusal
    if reply.status >= 500:
        return "the issuer, or a gateway before it, failed; nothing to change here"
    return _STATUSES.get(reply.status, "the issuer does not take the request")


def no_json_cause(reply: Reply) -> str:
    """For a body of 2xx that cannot be parsed."""
    if not reply.body.strip():
        return "it is empty"
    if _HTML.match(reply.body):
        return "it is an HTML page, such as that of a login or of a proxy on the way; see the URL"
    if "Content-Encoding" in reply.fields:
        return "it is encoded though identity was asked for"
    return "see the URL, and what the issuer's docs say of the answer"


def oauth_error(reply: Reply) -> str | None:
    """The `error` of a refusal with its meaning, where it is a registered code."""
    code = error_code(reply.body)
    return None if code is None else f"{code}, {_CODES.get(code, 'see RFC 6749 §5.2')}"
