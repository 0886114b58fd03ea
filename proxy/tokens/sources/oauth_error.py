"""The `error` code of a token endpoint's refusal, which tells an operator what to mend; used by the endpoint."""

import jiter

# Of RFC 6749 §5.2, what some servers also send from its §4.1.2.1, RFC 8707 §2, RFC 9396 §5 and RFC 9449 §5. Nothing
# else of a refusal is shown: its free text may repeat the request, secrets included.
_CODES = frozenset(
    {"invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type"}
    | {"invalid_scope", "access_denied", "server_error", "temporarily_unavailable", "invalid_target"}
    | {"invalid_authorization_details", "invalid_dpop_proof", "use_dpop_nonce"}
)
# A fault of the server's own, whatever the status (Entra ID sends them with 4xx): our credentials may be good.
PASSING_CODES = frozenset({"server_error", "temporarily_unavailable"})


def error_code(body: bytes) -> str | None:
    """The registered code of {"error": code}, or None where there is none."""
    try:
        document = jiter.from_json(body, cache_mode="none")
    except ValueError:
        return None
    code = document.get("error") if isinstance(document, dict) else None
    return code if isinstance(code, str) and code in _CODES else None
