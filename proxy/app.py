"""The app factory: makes each part once, hands it on by constructor. The one plan of who uses whom."""

from collections.abc import Mapping
from dataclasses import dataclass

import httpx2
from flask import Blueprint, Flask

from config import Settings
from config.addresses import check_http_proxy
from config.schema import ClientKey, Server
from config.upstreams import Upstream as UpstreamSection
from proxy.auth import Caller, ClientKeys
from proxy.blueprints.chat import chat_blueprint
from proxy.blueprints.embeddings import embeddings_blueprint
from proxy.blueprints.forward import Forwarder, Upstream
from proxy.blueprints.models import models_blueprint
from proxy.blueprints.operations import health_blueprint, metrics_blueprint, status_blueprint
from proxy.blueprints.passthrough import passthrough_blueprint
from proxy.caller_watch import CallerWatch
from proxy.hooks import Hooks
from proxy.lean_flask import LeanFlask
from proxy.limits import RateLimits, Slots
from proxy.observability.metrics import Metrics
from proxy.observability.metrics_folder import folder_of_environment
from proxy.observability.metrics_page import CONTENT_TYPE, MetricsPage
from proxy.observability.request_log import AccessLog
from proxy.routing import ModelMap
from proxy.token_sources import build_source, build_store, is_single_active
from proxy.tokens.holder import TokenHolder
from proxy.tokens.listener import TokenListener
from proxy.upstreams.answer_body import Timeouts
from proxy.upstreams.client import AsyncUpstreamClient, UpstreamClient
from proxy.upstreams.embedding_batches import EmbeddingBatches
from proxy.upstreams.event_loop import EventLoopThread
from proxy.upstreams.lazy_transport import LazyTransport
from proxy.upstreams.request_builder import UpstreamSettings
from proxy.upstreams.tls import ClientTls
from proxy.upstreams.transport import SocketTransport
from proxy.upstreams.tunnel import HttpProxy

# RAGFlow up to 0.26 builds /v1/v1 from a base URL with a trailing slash.
VERSION_PATHS = ("", "/v1", "/v1/v1")
# Of connections for split embeddings: how many there are is decided by max_concurrent_requests and concurrency.
_NO_LIMITS = httpx2.Limits(max_connections=None, max_keepalive_connections=100)


@dataclass(frozen=True, slots=True)
class Parts:
    """What a worker holds besides its routes, for those who must close it."""

    holders: Mapping[str, TokenHolder]
    upstreams: Mapping[str, UpstreamClient]
    event_loop: EventLoopThread

    def close(self) -> None:
        for holder in self.holders.values():
            holder.close()
        for client in self.upstreams.values():
            client.close()
        self.event_loop.close()


def create_app(settings: Settings) -> Flask:
    """A WSGI app for one worker. Starts nothing: threads and connections come with the first request to need them."""
    app = LeanFlask("proxy")
    # A redirect would make clients drop their key or turn a POST into a GET.
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    app.json.ensure_ascii = False  # type: ignore[attr-defined]  # of Flask's default provider
    app.json.sort_keys = False  # type: ignore[attr-defined]
    metrics = Metrics(
        [section.name for section in settings.upstreams], list(settings.token_sources), folder_of_environment()
    )
    parts = build_parts(settings, metrics)
    upstreams = [_upstream(section, parts) for section in settings.upstreams]
    slots = Slots(_requests_most(settings.server))
    hooks = Hooks(
        _client_keys(settings.client_keys),
        RateLimits(),
        slots,
        AccessLog(level=settings.logging.level, line_format=settings.logging.format),
        metrics,
        paths=[prefix + version for prefix in settings.server.url_prefixes for version in VERSION_PATHS],
        allowed_origins=settings.server.allowed_origins,
    )
    hooks.install(app)
    forwarder = Forwarder(upstreams, CallerWatch(), max_body_bytes=settings.server.max_body_bytes)
    for blueprint in (
        chat_blueprint(forwarder),
        embeddings_blueprint(forwarder),
        passthrough_blueprint(forwarder),
        models_blueprint(upstreams, forwarder),
    ):
        hooks.guard(blueprint)
        _register_everywhere(app, blueprint, settings.server.url_prefixes)
    used = {section.token_source for section in settings.upstreams}
    used_holders = {name: holder for name, holder in parts.holders.items() if name in used}
    app.register_blueprint(health_blueprint(used_holders))
    for blueprint in (
        status_blueprint(parts.holders, list(parts.upstreams), slots),
        metrics_blueprint(MetricsPage(metrics, used_holders).text, CONTENT_TYPE),
    ):
        if not settings.server.is_loopback:
            hooks.guard_operations(blueprint)
        app.register_blueprint(blueprint)
    app.extensions["llm_proxy"] = parts
    return app


def _requests_most(server: Server) -> int:
    """With threads, one less than there are: the last one answers 503 and the health routes."""
    if server.worker_class == "gthread":
        return max(1, min(server.max_concurrent_requests, server.threads - 1))
    return server.max_concurrent_requests


def build_parts(settings: Settings, listener: TokenListener | None = None) -> Parts:
    """The holders, the clients and the event loop; nothing of it has started."""
    holders = {
        name: TokenHolder(
            name,
            build_source(section),
            build_store(section, settings.token_store),
            single_active=is_single_active(section),
            listener=listener,
        )
        for name, section in settings.token_sources.items()
    }
    idle_most = settings.server.max_concurrent_requests
    clients = {section.name: _client(section, holders, idle_most=idle_most) for section in settings.upstreams}
    return Parts(holders, clients, EventLoopThread())


def _register_everywhere(app: Flask, blueprint: Blueprint, prefixes: tuple[str, ...]) -> None:
    for prefix in prefixes:
        for version in VERSION_PATHS:
            path = prefix + version
            app.register_blueprint(blueprint, url_prefix=path or None, name=f"{blueprint.name}{path.replace('.', '_')}")


def _client_keys(sections: tuple[ClientKey, ...]) -> ClientKeys:
    return ClientKeys(
        [
            (
                section.sha256,
                Caller(
                    label=section.label,
                    models=section.models,
                    expires_at=section.expires_at,
                    requests_per_minute=section.requests_per_minute,
                    max_concurrent=section.max_concurrent,
                    admin=section.admin,
                ),
            )
            for section in sections
        ]
    )


def _upstream(section: UpstreamSection, parts: Parts) -> Upstream:
    return Upstream(
        models=ModelMap(section.name, section.models),
        client=parts.upstreams[section.name],
        strip_fields=section.strip_fields,
        set_fields=dict(section.set_fields),
        keepalive_s=section.keepalive_comment_s,
        batches=_batches(section, parts),
    )


def _client(section: UpstreamSection, holders: Mapping[str, TokenHolder], *, idle_most: int) -> UpstreamClient:
    settings = upstream_settings(section)
    transport = SocketTransport(
        httpx2.URL(section.base_url),
        tls=upstream_tls(section),
        timeouts=settings.timeouts,
        http_proxy=upstream_http_proxy(section),
        idle_most=idle_most,
    )
    return UpstreamClient(settings, _holder(section, holders), transport)


def _batches(section: UpstreamSection, parts: Parts) -> EmbeddingBatches | None:
    max_batch = section.embeddings.max_batch
    if max_batch is None:
        return None
    tokens = _holder(section, parts.holders)
    transport = LazyTransport(lambda: _async_transport(section))
    client = AsyncUpstreamClient(upstream_settings(section), tokens, transport)
    return EmbeddingBatches(
        client,
        tokens,
        parts.event_loop,
        max_batch=max_batch,
        concurrency=section.embeddings.concurrency,
        total_s=section.timeouts.total_s,
    )


def _async_transport(section: UpstreamSection) -> httpx2.AsyncHTTPTransport:
    tls = upstream_tls(section)
    verify = True if tls is None else tls.context()
    http_proxy = upstream_http_proxy(section)
    proxy = None if http_proxy is None else http_proxy()
    return httpx2.AsyncHTTPTransport(verify=verify, trust_env=False, limits=_NO_LIMITS, proxy=proxy)


def upstream_settings(section: UpstreamSection) -> UpstreamSettings:
    """What the clients of an upstream, and the doctor, ask it with."""
    limits = section.timeouts
    return UpstreamSettings(
        base_url=section.base_url,
        token_header=section.token_header,
        token_prefix=section.token_prefix,
        fields={name: value.reveal() for name, value in section.headers.items()},
        renew_on=frozenset(section.renew_on),
        timeouts=Timeouts(limits.connect_s, limits.first_byte_s, limits.idle_s, limits.total_s),
    )


def _holder(section: UpstreamSection, holders: Mapping[str, TokenHolder]) -> TokenHolder | None:
    return None if section.token_source is None else holders[section.token_source]


def upstream_http_proxy(section: UpstreamSection) -> HttpProxy | None:
    """Tells the proxy as it is given now, judged as at load; None where the way is direct."""
    url = section.http_proxy
    return None if url is None else lambda: httpx2.Proxy(check_http_proxy(url.reveal()))


def upstream_tls(section: UpstreamSection) -> ClientTls | None:
    """None for plain HTTP."""
    if not section.base_url.lower().startswith("https:"):
        return None
    return ClientTls(section.ca_bundle, section.client_cert)
