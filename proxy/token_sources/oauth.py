"""The sources that speak OAuth 2 to a token endpoint."""

from collections.abc import Callable
from functools import lru_cache
from typing import cast

from config import SecretRef
from config import sources as sections
from config.errors import Fault
from config.private_key import SigningKey, parse_private_key
from proxy.token_sources.secrets import reader, revealed
from proxy.tokens.sources import client_auth
from proxy.tokens.sources.base import Source, TokenFetchError
from proxy.tokens.sources.client_auth import ClientAuth
from proxy.tokens.sources.client_credentials import ClientCredentialsSource
from proxy.tokens.sources.endpoint import Observer, TokenEndpoint
from proxy.tokens.sources.oauth_client import Form, OAuthClient
from proxy.tokens.sources.reply import ReplyShape
from proxy.tokens.sources.token_exchange import GivenToken, TokenExchangeSource
from proxy.upstreams.tls import ClientTls

_ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"


def build_client_credentials(section: sections.ClientCredentialsSource, observe: Observer | None) -> Source:
    shape = ReplyShape(default_lifetime_s=section.default_lifetime_s)
    return ClientCredentialsSource(_client(section, shape, observe), lambda: _fields(section))


def build_token_exchange(section: sections.TokenExchangeSource, observe: Observer | None) -> Source:
    # RFC 8693 §2.2.1: the token_type of what is no access token is N_A; it counts where another type was asked for.
    other_type = section.requested_token_type not in (None, _ACCESS_TOKEN)
    token_types = ("bearer", "n_a") if other_type else ("bearer",)
    actor = section.actor_token
    shape = ReplyShape(default_lifetime_s=section.default_lifetime_s, token_types=token_types)
    return TokenExchangeSource(
        _client(section, shape, observe),
        GivenToken(reader(section.subject_token), section.subject_token_type),
        actor=None if actor is None else GivenToken(reader(actor), section.actor_token_type),
        read_fields=lambda: _fields(section, requested_token_type=section.requested_token_type),
    )


def _client(section: sections.OAuthClient, shape: ReplyShape, observe: Observer | None) -> OAuthClient:
    tls = ClientTls(section.ca_bundle, section.client_cert)
    endpoint = TokenEndpoint(section.token_url, tls=tls.context, observe=observe)
    return OAuthClient(endpoint, _client_auth(section), shape)


def _fields(section: sections.OAuthClient, **more: str | None) -> Form:
    """What was configured to stand in the form, with the secrets as they are at this moment."""
    fields = {"scope": section.scope, "audience": section.audience, "resource": section.resource, **more}
    return {**{name: value for name, value in fields.items() if value}, **revealed(section.fields)}


def _client_auth(section: sections.OAuthClient) -> ClientAuth:
    """The casts hold, as crosscheck.py lets no section through that lacks what its method needs."""
    match section.auth_method:
        case "client_secret_basic":
            return client_auth.client_secret_basic(section.client_id, reader(cast(SecretRef, section.client_secret)))
        case "client_secret_post":
            return client_auth.client_secret_post(section.client_id, reader(cast(SecretRef, section.client_secret)))
        case "private_key_jwt":
            audience = section.assertion_audience or section.token_url
            return client_auth.private_key_jwt(section.client_id, _key_reader(section), audience)
        case "tls_client_auth" | "none":
            return client_auth.client_id_alone(section.client_id)


def _key_reader(section: sections.OAuthClient) -> Callable[[], SigningKey]:
    read = reader(cast(SecretRef, section.private_key))

    @lru_cache(maxsize=1)  # a parse takes up to half a second of a whole gevent worker
    def parse(text: str) -> SigningKey:
        return parse_private_key(text, alg=section.signing_alg, kid=section.key_id)

    def read_key() -> SigningKey:
        try:
            return parse(read())
        except Fault as fault:
            raise TokenFetchError(f"private_key: {fault}") from None

    return read_key
