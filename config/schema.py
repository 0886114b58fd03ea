"""The sections of config.yaml as frozen, typed values: what each key means, its default and its limits.

Checks of one value are here, in upstreams.py and in sources.py; checks between values are in crosscheck.py,
so that they also run when another field is at fault.
"""

import os
import re
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator

from config.addresses import (
    check_base_url,
    check_bind,
    check_loopback_bind,
    check_origin,
    check_redis_url,
    is_loopback,
    split_bind,
)
from config.certificates import CaBundle
from config.errors import Fault
from config.secret_ref import SecretRef
from config.sources import TokenSource
from config.upstreams import Upstream
from config.values import NOT_EMPTY, Count, Label, RequiredSecret, Seconds, Section, Text

# RFC 3986 §2.3: unreserved characters need no escape, so routes match as written. Clients drop `.` and `..`.
_PREFIX = re.compile(r"(/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~-]+)*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def _check_prefix(prefix: str) -> str:
    if not _PREFIX.fullmatch(prefix):
        raise Fault("must be empty or a path such as /agent/api: a slash first, none last, unescaped")
    return prefix


def _check_sha256(digest: str) -> str:
    if not _SHA256.fullmatch(digest.lower()):
        raise Fault("must be 64 hex digits")
    return digest.lower()


def _instant(value: object) -> object:
    # Numbers are refused: as seconds since 1970 a slip such as 2027 would end the key long ago.
    try:
        instant = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        instant = None
    if not isinstance(instant, datetime):
        raise Fault("must be a date and time such as 2027-01-31T00:00:00Z")
    if instant.utcoffset() is None:
        raise Fault("must have a time zone: add one, such as Z in 2027-01-31T00:00:00Z")
    return instant


def _check_redis_url(url: SecretRef) -> SecretRef:
    check_redis_url(url.reveal())
    return url


def _check_tracing_installed(endpoint: str) -> str:
    """An extra, so that who does not want it need not install it; a worker could only fail without it."""
    try:
        version("opentelemetry-exporter-otlp-proto-http")
    except PackageNotFoundError:
        raise Fault("needs the packages of requirements-otel.txt installed") from None
    return endpoint


RedisUrl: TypeAlias = Annotated[RequiredSecret, AfterValidator(_check_redis_url)]


# RAGFlow up to 0.26 builds /v1/v1 from a base URL with a trailing slash.
VERSION_PATHS = ("", "/v1", "/v1/v1")


class Server(Section):
    """Where and how the proxy listens. `threads` counts for the worker class gthread only."""

    bind: Annotated[str, AfterValidator(check_bind)] = "127.0.0.1:5002"
    workers: Count = Field(default_factory=lambda: os.cpu_count() or 1)
    worker_class: Literal["gevent", "gthread"] = "gevent"
    threads: Count = 64
    url_prefixes: Annotated[tuple[Annotated[str, AfterValidator(_check_prefix)], ...], NOT_EMPTY] = (
        "/agent/api/llm_proxy",
        "",
    )
    max_body_bytes: Count = 32 * 1024 * 1024
    max_concurrent_requests: Count = 4000
    allowed_origins: tuple[Annotated[str, AfterValidator(check_origin)], ...] = ()
    drain_s: Seconds = 60

    @field_validator("url_prefixes")
    @classmethod
    def _prefixes_differ(cls, prefixes: tuple[str, ...]) -> tuple[str, ...]:
        paths = [prefix + path for prefix in prefixes for path in VERSION_PATHS]
        if len(set(paths)) < len(paths):
            raise Fault("must not name a prefix twice, nor with /v1")
        return prefixes

    @property
    def worker_requests(self) -> int:
        """How many a worker is to serve at a time; of its threads the last answers 503 and the health routes."""
        if self.worker_class == "gevent":
            return self.max_concurrent_requests
        return max(1, min(self.max_concurrent_requests, self.threads - 1))

    @property
    def host(self) -> str:
        """Host of `bind`, an IPv6 address without its brackets."""
        return split_bind(self.bind)[0]

    @property
    def port(self) -> int:
        return split_bind(self.bind)[1]

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches the server: what is shown and asked of callers depends on it."""
        return is_loopback(self.host)


class ClientKey(Section):
    """One caller: its key's hash and what it may do. `models` are patterns for fnmatch; null: no limit."""

    label: Label
    sha256: Annotated[str, AfterValidator(_check_sha256)] = Field(repr=False)
    models: tuple[Text, ...] = ("*",)
    expires_at: Annotated[datetime, BeforeValidator(_instant)] | None = None
    requests_per_minute: Count | None = None
    max_concurrent: Count | None = None
    admin: bool = False


class TokenStore(Section):
    """Where tokens are kept: in a file that all workers of the host share, in a Redis or Valkey that all hosts share,
    or in the memory of each worker. `url` holds the password too, so it is a secret."""

    type: Literal["file", "memory", "redis"] = "file"
    url: RedisUrl | None = None
    # After url, which decides whether there is TLS.
    ca_bundle: CaBundle | None = None

    @field_validator("ca_bundle")
    @classmethod
    def _bundle_is_for_tls(cls, ca_bundle: Path | None, info: ValidationInfo) -> Path | None:
        url = info.data.get("url")
        if ca_bundle is not None and url is not None and not url.reveal().startswith("rediss://"):
            raise Fault("must be left out but for a rediss:// url")
        return ca_bundle


class Logging(Section):
    level: Literal["TRACE", "DEBUG", "INFO", "SUCCESS", "WARNING", "ERROR"] = "INFO"
    format: Literal["text", "json"] = "text"
    bodies: bool = False

    @field_validator("bodies")
    @classmethod
    def _no_bodies(cls, bodies: bool) -> bool:
        if bodies:
            raise Fault("must be false: prompts and answers are never logged")
        return bodies


class Tracing(Section):
    """OpenTelemetry spans of the API's requests. What is not here is the SDK's to read from its OTEL_* variables."""

    otlp_endpoint: Annotated[str, AfterValidator(check_base_url), AfterValidator(_check_tracing_installed)]


class Sandbox(Section):
    """The embedded issuer and upstream, to try the proxy without any account."""

    bind: Annotated[str, AfterValidator(check_loopback_bind)] = "127.0.0.1:5003"
    token_lifetime_s: Seconds = 300

    @property
    def host(self) -> str:
        """Host of `bind`, an IPv6 address without its brackets."""
        return split_bind(self.bind)[0]

    @property
    def port(self) -> int:
        return split_bind(self.bind)[1]


class Settings(Section):
    """The whole file. Made by `load`, which alone checks what spans sections."""

    server: Server = Field(default_factory=Server)
    client_keys: tuple[ClientKey, ...] = ()
    token_store: TokenStore = TokenStore()
    token_sources: Mapping[Label, TokenSource] = {}
    upstreams: Annotated[tuple[Upstream, ...], NOT_EMPTY]
    logging: Logging = Logging()
    tracing: Tracing | None = None
    sandbox: Sandbox | None = None
