"""A token for a token, the exchange of RFC 8693: such as a workload's of its platform for one of the upstream's."""

from collections.abc import Callable
from dataclasses import dataclass

from proxy.tokens.sources.base import Grant, Source
from proxy.tokens.sources.oauth_client import Form, OAuthClient

_GRANT_TYPE = "urn:ietf:params:oauth:grant-type:token-exchange"


@dataclass(frozen=True, slots=True)
class GivenToken:
    """A token to exchange, read anew for each request, and its type: an identifier of RFC 8693 §3."""

    read: Callable[[], str]
    type: str


class TokenExchangeSource(Source):
    """Gives a subject's token, and maybe an actor's, to a token endpoint and gets another one."""

    def __init__(
        self,
        client: OAuthClient,
        subject: GivenToken,
        *,
        actor: GivenToken | None = None,
        read_fields: Callable[[], Form] = dict,
    ) -> None:
        """`read_fields` gives what else stands in the form: requested_token_type, scope, audience, resource, others."""
        self._client = client
        self._subject = subject
        self._actor = actor
        self._read_fields = read_fields

    def fetch(self) -> Grant:
        """Get a token. Body: as RFC 6749 §5.1, and `issued_token_type`. Source: RFC 8693 §2.1 and §2.2.1."""
        form = {"grant_type": _GRANT_TYPE, **_members("subject", self._subject)}
        if self._actor is not None:
            form |= _members("actor", self._actor)
        return self._client.ask({**form, **self._read_fields()})

    def close(self) -> None:
        self._client.close()


def _members(role: str, token: GivenToken) -> dict[str, str]:
    return {f"{role}_token": token.read(), f"{role}_token_type": token.type}
