"""A token by the client credentials grant of OAuth 2 (RFC 6749 §4.4)."""

from collections.abc import Callable

from proxy.tokens.sources.base import Grant, Source
from proxy.tokens.sources.oauth_client import Form, OAuthClient


class ClientCredentialsSource(Source):
    """Asks a token endpoint as a client in its own name."""

    def __init__(self, client: OAuthClient, read_fields: Callable[[], Form]) -> None:
        """`read_fields` gives what stands in the form beside the grant type: scope, audience, resource and others."""
        self._client = client
        self._read_fields = read_fields

    def fetch(self) -> Grant:
        """Get a token. Source: RFC 6749 §4.4.2."""
        return self._client.ask({"grant_type": "client_credentials", **self._read_fields()})

    def close(self) -> None:
        self._client.close()
