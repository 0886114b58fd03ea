"""A token by the client credentials grant of OAuth 2 (RFC 6749 §4.4)."""

import base64
from collections.abc import Callable, Mapping
from typing import Literal
from urllib.parse import quote_plus

from proxy.tokens.sources.base import Grant
from proxy.tokens.sources.endpoint import TokenEndpoint
from proxy.tokens.sources.reply import ReplyShape, read_grant

AuthMethod = Literal["client_secret_basic", "client_secret_post"]


class ClientCredentialsSource:
    """Asks a token endpoint as a client in its own name."""

    def __init__(
        self,
        endpoint: TokenEndpoint,
        *,
        client_id: str,
        read_secret: Callable[[], str],
        auth_method: AuthMethod = "client_secret_basic",
        fields: Mapping[str, str] | None = None,
        default_lifetime_s: float = 300.0,
    ) -> None:
        """`fields` go into the form beside the grant type: scope, audience. The secret is read anew at each fetch."""
        self._endpoint = endpoint
        self._client_id = client_id
        self._read_secret = read_secret
        self._auth_method = auth_method
        self._fields = dict(fields or {})
        self._shape = ReplyShape(default_lifetime_s=default_lifetime_s)

    def fetch(self) -> Grant:
        """Get a token. Body: {"access_token": str, "token_type": "Bearer", "expires_in": int seconds}.

        Source: RFC 6749 §4.4.2 and §5.1.
        """
        form = {"grant_type": "client_credentials", **self._fields}
        headers = {}
        if self._auth_method == "client_secret_basic":
            headers["Authorization"] = self._basic()
        else:
            form |= {"client_id": self._client_id, "client_secret": self._read_secret()}
        return read_grant(self._endpoint.ask(data=form, headers=headers), self._shape)

    def close(self) -> None:
        self._endpoint.close()

    def _basic(self) -> str:
        # RFC 6749 §2.3.1: both parts are form-encoded before they are joined, which plain HTTP Basic does not do.
        pair = f"{quote_plus(self._client_id)}:{quote_plus(self._read_secret())}"
        return "Basic " + base64.b64encode(pair.encode()).decode()
