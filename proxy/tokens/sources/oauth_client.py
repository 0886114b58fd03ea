"""A client of OAuth 2 at a token endpoint: sends a grant with the proof of who it is; used by the sources of OAuth."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from proxy.tokens.sources.base import Grant
from proxy.tokens.sources.client_auth import ClientAuth
from proxy.tokens.sources.endpoint import TokenEndpoint
from proxy.tokens.sources.reply import ReplyShape, read_grant

# Members of a form; a list is a member that is sent more than once (RFC 8693 §2.1, RFC 8707 §2).
Form: TypeAlias = Mapping[str, str | Sequence[str]]


class OAuthClient:
    def __init__(self, endpoint: TokenEndpoint, authenticate: ClientAuth, shape: ReplyShape) -> None:
        self._endpoint = endpoint
        self._authenticate = authenticate
        self._shape = shape

    def ask(self, form: Form) -> Grant:
        """Get a token. Body: {"access_token": str, "token_type": "Bearer", "expires_in": int seconds}.

        Raises TokenFetchError. Source: RFC 6749 §5.1.
        """
        proof = self._authenticate()
        reply = self._endpoint.ask(data={**form, **proof.form}, headers=proof.headers)
        return read_grant(reply, self._shape)

    def close(self) -> None:
        self._endpoint.close()
