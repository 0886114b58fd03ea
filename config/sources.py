"""`token_sources`: where access tokens come from, one class per `type`.

A source is data only; the code that asks a token endpoint lives elsewhere and gets these values.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field

from config.addresses import check_token_url
from config.errors import Fault
from config.values import (
    ExistingFile,
    FieldName,
    FieldValue,
    JsonWithSecrets,
    RequiredSecret,
    Seconds,
    Secret,
    Section,
    Text,
)

# RFC 6901 §3: "" is the whole document; in a step, ~ stands only in ~0 and ~1.
_POINTER = re.compile(r"(/([^~/]|~[01])*)*")


def _check_pointer(pointer: str) -> str:
    if not _POINTER.fullmatch(pointer):
        raise Fault("must be a JSON pointer (RFC 6901), such as /data/access_token")
    return pointer


Pointer: TypeAlias = Annotated[str, AfterValidator(_check_pointer)]
TokenUrl: TypeAlias = Annotated[str, AfterValidator(check_token_url)]


class HttpJsonSource(Section):
    """A request of any shape whose JSON answer holds the token.

    `json_body` is written `json` in the file (pydantic keeps that name for itself). At most one of it and
    `form` holds members, and at most one expiry pointer is set (crosscheck.py); with no expiry in the answer
    or no pointer to it, `default_lifetime_s` counts.
    """

    type: Literal["http_json"]
    url: TokenUrl
    method: Literal["GET", "POST", "PUT"] = "POST"
    headers: Mapping[FieldName, FieldValue] = {}
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
    ca_bundle: ExistingFile | None = None


class ClientCredentialsSource(Section):
    """The client credentials grant of RFC 6749 §4.4; `auth_method` as RFC 7591 §2 names it."""

    type: Literal["client_credentials"]
    token_url: TokenUrl
    client_id: Text
    client_secret: RequiredSecret
    scope: Text | None = None
    audience: Text | None = None
    auth_method: Literal["client_secret_basic", "client_secret_post"] = "client_secret_basic"
    default_lifetime_s: Seconds = 300
    ca_bundle: ExistingFile | None = None


class StaticSource(Section):
    """A token that is given and not fetched; from a file, the file may change at any time."""

    type: Literal["static"]
    token: RequiredSecret


TokenSource: TypeAlias = Annotated[HttpJsonSource | ClientCredentialsSource | StaticSource, Field(discriminator="type")]
SOURCE_TYPES = ("http_json", "client_credentials", "static")
