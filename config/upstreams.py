"""`upstreams`: the LLM services, what each is asked with, and how long it may take."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator, PlainValidator, ValidationInfo, field_validator

from config.addresses import check_base_url, check_http_proxy
from config.certificates import CaBundle, ClientCert
from config.errors import Fault
from config.fields import FIELDS_DIFFER, FieldName, FieldValue
from config.secret_ref import SecretRef
from config.values import NOT_EMPTY, Count, Label, RequiredSecret, Seconds, Section, Text, config_folder

# `model` is chosen by `models`, `stream` by the caller.
_RESERVED_MEMBERS = ("model", "stream")
_PREFIX = re.compile(r"([!-~]([ -~]*[!-~])?)?")
_RENEWABLE = (401, 403)
ADAPTERS = ("dashscope", "plain_sse")
_OWN_ADAPTER = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)


def _check_prefix(prefix: str) -> str:
    if not _PREFIX.fullmatch(prefix):
        raise Fault("must be printable ASCII without spaces at its ends, or empty")
    return prefix


def _check_renewable(status: int) -> int:
    if status not in _RENEWABLE:
        raise Fault("must be 401 or 403")
    return status


def _check_settable(member: str) -> str:
    if member in _RESERVED_MEMBERS:
        raise Fault("must not be model or stream")
    return member


def _check_http_proxy(secret: SecretRef) -> SecretRef:
    check_http_proxy(secret.reveal())
    return secret


# It holds a password, so all of it is a secret.
HttpProxyUrl: TypeAlias = Annotated[RequiredSecret, AfterValidator(_check_http_proxy)]


@dataclass(frozen=True, slots=True)
class AdapterName:
    """One of ADAPTERS, or `package.module:Class`; `folder` is the config file's, where the module may be."""

    name: str
    folder: Path


def _adapter(value: object, info: ValidationInfo) -> AdapterName:
    if not isinstance(value, str) or not (value in ADAPTERS or _OWN_ADAPTER.fullmatch(value)):
        raise Fault(f"must be {', '.join(ADAPTERS)} or package.module:Class")
    return AdapterName(value, config_folder(info))


class Embeddings(Section):
    """At most `max_batch` inputs in one request (null: never split), `concurrency` requests at a time."""

    max_batch: Count | None = None
    concurrency: Count = 4


class Timeouts(Section):
    """Longest waits: to connect, for the first byte, between two bytes, and for the whole answer."""

    connect_s: Seconds = 5
    first_byte_s: Seconds = 300
    idle_s: Seconds = 120
    total_s: Seconds = 1800


class Upstream(Section):
    """One LLM service. `models`: name that callers use (`*` matches any run) → name there (`*`: the same)."""

    name: Label
    base_url: Annotated[str, AfterValidator(check_base_url)]
    adapter: Annotated[AdapterName, PlainValidator(_adapter)] | None = None
    token_source: str | None = None
    token_header: FieldName = "Authorization"
    token_prefix: Annotated[str, AfterValidator(_check_prefix)] = "Bearer"
    models: Annotated[Mapping[Text, Text], NOT_EMPTY] = {"*": "*"}
    headers: Annotated[Mapping[FieldName, FieldValue], FIELDS_DIFFER] = {}
    strip_fields: tuple[Text, ...] = ()
    set_fields: Mapping[Annotated[str, AfterValidator(_check_settable)], Any] = {}
    embeddings: Embeddings = Embeddings()
    renew_on: frozenset[Annotated[int, AfterValidator(_check_renewable)]] = frozenset({401})
    timeouts: Timeouts = Timeouts()
    keepalive_comment_s: Seconds | None = 4
    http_proxy: HttpProxyUrl | None = None
    ca_bundle: CaBundle | None = None
    client_cert: ClientCert | None = None
    fail_over_to: str | None = None  # the name of another: asked where this one takes nobody

    @field_validator("models")
    @classmethod
    def _names_are_whole(cls, models: Mapping[str, str]) -> Mapping[str, str]:
        for ours, theirs in models.items():
            if theirs == "*" and "*" not in ours:
                raise Fault("must give a name without a wildcard its own name upstream, not *")
            if theirs != "*" and "*" in theirs:
                raise Fault("must have whole names or a bare * as values")
        return models
