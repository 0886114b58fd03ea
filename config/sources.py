"""`token_sources`: where access tokens come from, one class per `type`.

A source is data only; the code that asks a token endpoint lives elsewhere and gets these values.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias, get_args

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator

from config.addresses import check_absolute_uri, check_token_url
from config.certificates import CaBundle, ClientCert
from config.errors import Fault
from config.fields import FIELDS_DIFFER, FieldName, FieldValue
from config.private_key import SigningAlg, parse_private_key
from config.secret_ref import SecretRef
from config.values import (
    NOT_EMPTY,
    FileToCome,
    JsonWithSecrets,
    RequiredSecret,
    Seconds,
    Secret,
    Section,
    Text,
)

# RFC 6901 §3: "" is the whole document; in a step, ~ stands only in ~0 and ~1.
_POINTER = re.compile(r"(/([^~/]|~[01])*)*")
_FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
# RFC 6750 §2.1, b64token; no longer than the sources take one.
_BEARER_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_TOKEN_MOST_CHARS = 16 * 1024
# What the grants send by themselves (RFC 6749, 7521, 8693, 8707); a second one would make the request invalid.
_FIELDS_OF_OURS = frozenset(
    {"grant_type", "client_id", "client_secret", "client_assertion", "client_assertion_type", "scope", "audience"}
    | {"resource", "subject_token", "subject_token_type", "actor_token", "actor_token_type", "requested_token_type"}
)


def _check_pointer(pointer: str) -> str:
    if not _POINTER.fullmatch(pointer):
        raise Fault("must be a JSON pointer (RFC 6901), such as /data/access_token")
    return pointer


def _as_tuple(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _check_form_field(name: str) -> str:
    if name in _FIELDS_OF_OURS:
        raise Fault("must not be a member that the grant itself sends")
    return name


def _check_no_nul(argument: str) -> str:
    if "\0" in argument:
        raise Fault("must not hold NUL")
    return argument


def _check_variable(name: str) -> str:
    if "\0" in name or "=" in name:
        raise Fault("must be the name of a variable: without = and NUL")
    return name


def _check_variable_value(value: SecretRef) -> SecretRef:
    _check_no_nul(value.reveal())
    return value


def _check_bearer_token(secret: SecretRef) -> SecretRef:
    token = secret.reveal()
    if not _BEARER_TOKEN.fullmatch(token) or len(token) > _TOKEN_MOST_CHARS:
        raise Fault(
            f"must be a token as RFC 6750 has it: at most {_TOKEN_MOST_CHARS} letters, digits and -._~+/, "
            "and = only at the end"
        )
    return secret


def _check_function(name: str) -> str:
    if not _FUNCTION.fullmatch(name):
        raise Fault("must be package.module:function")
    return name


Pointer: TypeAlias = Annotated[str, AfterValidator(_check_pointer)]
TokenUrl: TypeAlias = Annotated[str, AfterValidator(check_token_url)]
# One text or several: RFC 8693 §2.1 and RFC 8707 §2 allow more than one audience and resource.
Texts: TypeAlias = Annotated[tuple[Text, ...], BeforeValidator(_as_tuple)]
Uris: TypeAlias = Annotated[tuple[Annotated[Text, AfterValidator(check_absolute_uri)], ...], BeforeValidator(_as_tuple)]
FormField: TypeAlias = Annotated[Text, AfterValidator(_check_form_field)]
AuthMethod: TypeAlias = Literal[
    "client_secret_basic", "client_secret_post", "private_key_jwt", "tls_client_auth", "none"
]
# Whether the tokens that an issuer gave before stay good when it gives a new one.
Issuer: TypeAlias = Literal["many_active", "single_active"]


class HttpJsonSource(Section):
    """A request of any shape whose JSON answer holds the token.

    `json_body` is written `json` in the file (pydantic keeps that name for itself). At most one of it and
    `form` holds members, and at most one expiry pointer is set (crosscheck.py); with no expiry in the answer
    or no pointer to it, `default_lifetime_s` counts.
    """

    type: Literal["http_json"]
    url: TokenUrl
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "POST"
    headers: Annotated[Mapping[FieldName, FieldValue], FIELDS_DIFFER] = {}
    query: Mapping[str, Secret] = {}
    json_body: Mapping[str, JsonWithSecrets] = Field(default={}, alias="json")
    form: Mapping[str, Secret] = {}
    token_pointer: Pointer = "/access_token"
    expires_at_pointer: Pointer | None = None
    # After expires_at_pointer, whose value decides the default.
    expires_in_pointer: Pointer | None = Field(
        default_factory=lambda earlier: "/expires_in" if earlier.get("expires_at_pointer") is None else None
    )
    default_lifetime_s: Seconds = 300
    ca_bundle: CaBundle | None = None
    client_cert: ClientCert | None = None
    issuer: Issuer = "many_active"


class OAuthClient(Section):
    """How we are known to a token endpoint of OAuth 2. `auth_method` as RFC 7591 §2 and RFC 8705 §2.1 name it.

    Which members a method needs, and which it has no use for, is checked in crosscheck.py. `private_key` is PEM or a
    JWK; `assertion_audience` is the token URL unless the issuer wants another. `fields` are further members of the
    form, for what an issuer invented.
    """

    token_url: TokenUrl
    client_id: Text
    client_secret: RequiredSecret | None = None
    auth_method: AuthMethod = "client_secret_basic"
    key_id: Text | None = None
    signing_alg: SigningAlg | None = None
    # After signing_alg, which decides whether the key fits.
    private_key: RequiredSecret | None = None
    assertion_audience: Text | None = None
    client_cert: ClientCert | None = None
    scope: Text | None = None
    audience: Texts = ()
    resource: Uris = ()
    fields: Mapping[FormField, Secret] = {}
    default_lifetime_s: Seconds = 300
    ca_bundle: CaBundle | None = None
    issuer: Issuer = "many_active"

    @field_validator("private_key")
    @classmethod
    def _key_signs(cls, private_key: SecretRef | None, info: ValidationInfo) -> SecretRef | None:
        if private_key is not None:
            parse_private_key(private_key.reveal(), alg=info.data.get("signing_alg"))
        return private_key


class ClientCredentialsSource(OAuthClient):
    """The client credentials grant of RFC 6749 §4.4."""

    type: Literal["client_credentials"]


class TokenExchangeSource(OAuthClient):
    """The token exchange of RFC 8693: a token that we are given, mostly in a file, for one of the upstream's."""

    type: Literal["token_exchange"]
    subject_token: RequiredSecret
    subject_token_type: Text = "urn:ietf:params:oauth:token-type:jwt"
    actor_token: RequiredSecret | None = None
    actor_token_type: Text = "urn:ietf:params:oauth:token-type:jwt"
    requested_token_type: Text | None = None


class CommandSource(Section):
    """A program that prints a token: as plain text, as an ExecCredential, as credential_process JSON, or in JSON where
    `token_pointer` says. Run without a shell. `env` is added to the proxy's own environment."""

    type: Literal["command"]
    argv: Annotated[tuple[Annotated[Text, AfterValidator(_check_no_nul)], ...], NOT_EMPTY]
    env: Mapping[
        Annotated[Text, AfterValidator(_check_variable)], Annotated[Secret, AfterValidator(_check_variable_value)]
    ] = {}
    token_pointer: Pointer | None = None
    expires_at_pointer: Pointer | None = None
    expires_in_pointer: Pointer | None = None
    default_lifetime_s: Seconds = 300
    issuer: Issuer = "many_active"


class FileSource(Section):
    """A token in a file that something else renews: `path` is looked at every second and read when it has changed."""

    type: Literal["file"]
    path: FileToCome


class StaticSource(Section):
    """A token that is given and not fetched; from a file, the file may change at any time."""

    type: Literal["static"]
    token: Annotated[RequiredSecret, AfterValidator(_check_bearer_token)]


class PythonSource(Section):
    """A function of the operator's own: `function: package.module:name`, called with `arguments` by name."""

    type: Literal["python"]
    function: Annotated[str, AfterValidator(_check_function)]
    arguments: Mapping[Text, JsonWithSecrets] = {}
    default_lifetime_s: Seconds = 300
    issuer: Issuer = "many_active"


TokenSource: TypeAlias = Annotated[
    HttpJsonSource
    | ClientCredentialsSource
    | TokenExchangeSource
    | CommandSource
    | FileSource
    | StaticSource
    | PythonSource,
    Field(discriminator="type"),
]
SOURCE_TYPES: tuple[str, ...] = tuple(
    name for section in get_args(get_args(TokenSource)[0]) for name in get_args(section.model_fields["type"].annotation)
)
