"""The token endpoints: a company's own JSON one, and the standard one of RFC 6749 with client credentials.

`app` maps them to routes. Both know one client, whose id and secret are public.
"""

import base64
import binascii
import hmac
import json
import re
from urllib.parse import parse_qsl, unquote_plus

from sandbox.answers.shape import Answer, Headers, json_answer
from sandbox.journal import Entry
from sandbox.tokens import TokenMint

CLIENT_ID = "sandbox-app"
CLIENT_SECRET = "sandbox-secret"
_FORM = "application/x-www-form-urlencoded"
# RFC 6749 §3.3: scope tokens, parted by single spaces.
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+( [\x21\x23-\x5b\x5d-\x7e]+)*")
_NO_STORE: Headers = (("Cache-Control", "no-store"), ("Pragma", "no-cache"))


class OAuthError(Exception):
    """An error of RFC 6749 §5.2: its code, status and further fields."""

    def __init__(self, code: str, status: int = 400, headers: Headers = ()) -> None:
        super().__init__(code)
        self.answer = json_answer({"error": code}, status, _NO_STORE + headers)


class Issuer:
    """Hands out tokens."""

    def __init__(self, mint: TokenMint) -> None:
        self._mint = mint

    def answer_json(self, entry: Entry) -> Answer:
        """Answer POST /token: {"appId", "appSecret"} for a token."""
        try:
            body = json.loads(entry.body or b"")
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            return json_answer({"error": "invalid_request"}, 400, _NO_STORE)
        if not _is_client(body.get("appId"), body.get("appSecret")):
            return json_answer({"error": "invalid_client"}, 401, _NO_STORE)
        return self._token()

    def answer_oauth(self, entry: Entry) -> Answer:
        """Answer POST /oauth/token: the client credentials grant (RFC 6749 §4.4)."""
        try:
            form = _read_form(entry)
            _authenticate(entry.values_of("Authorization"), form)
            return self._token(_granted_scope(form))
        except OAuthError as error:
            return error.answer

    def _token(self, scope: str | None = None) -> Answer:
        lifetime_s = self._mint.lifetime_s
        members = {
            "access_token": self._mint.issue(),
            "token_type": "Bearer",
            "expires_in": int(lifetime_s) if lifetime_s.is_integer() else lifetime_s,
        }
        return json_answer(members | ({} if scope is None else {"scope": scope}), headers=_NO_STORE)


def _read_form(entry: Entry) -> dict[str, str]:
    """Read the parameters; an empty one counts as absent and none may come twice (RFC 6749 §3.2)."""
    media_type = "".join(entry.values_of("Content-Type")).partition(";")[0].strip().lower()
    try:
        pairs = parse_qsl((entry.body or b"").decode(), keep_blank_values=True, errors="strict")
    except ValueError:
        raise OAuthError("invalid_request") from None
    form = dict(pairs)
    if media_type != _FORM or len(form) != len(pairs):
        raise OAuthError("invalid_request")
    return {name: value for name, value in form.items() if value}


def _authenticate(authorization: list[str], form: dict[str, str]) -> None:
    """Check the client: Basic, or id and secret in the form, but not both (RFC 6749 §2.3)."""
    if not authorization:
        if not _is_client(form.get("client_id"), form.get("client_secret")):
            raise OAuthError("invalid_client", 401)
        return
    if len(authorization) > 1 or "client_secret" in form:
        raise OAuthError("invalid_request")
    if not _is_client(*_read_basic(authorization[0])):
        # §5.2: a client that came with Authorization is told which scheme to use.
        raise OAuthError("invalid_client", 401, (("WWW-Authenticate", 'Basic realm="sandbox"'),))


def _read_basic(value: str) -> tuple[str, str]:
    """Read id and secret, each form-encoded before the join (RFC 6749 §2.3.1); empty where unreadable."""
    scheme, _, credentials = value.partition(" ")
    try:
        text = base64.b64decode(credentials.strip(), validate=True).decode()
    except (binascii.Error, ValueError):
        return "", ""
    name, _, secret = text.partition(":")
    return (unquote_plus(name), unquote_plus(secret)) if scheme.lower() == "basic" else ("", "")


def _is_client(name: object, secret: object) -> bool:
    if not isinstance(name, str) or not isinstance(secret, str):
        return False
    given = f"{name}\n{secret}".encode("utf-8", "backslashreplace")
    return hmac.compare_digest(given, f"{CLIENT_ID}\n{CLIENT_SECRET}".encode())


def _granted_scope(form: dict[str, str]) -> str | None:
    """Check the grant type and the scope, and grant the scope as it was asked for."""
    if "grant_type" not in form:
        raise OAuthError("invalid_request")
    if form["grant_type"] != "client_credentials":
        raise OAuthError("unsupported_grant_type")
    scope = form.get("scope")
    if scope is not None and not _SCOPE.fullmatch(scope):
        raise OAuthError("invalid_scope")
    return scope
