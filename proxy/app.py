"""The app factory: makes each part once, hands it on by constructor. The one plan of who uses whom."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from flask import Blueprint, Flask

from config import Settings
from config.schema import VERSION_PATHS, ClientKey, TokenStore
from config.schema import Tracing as TracingSection
from config.upstreams import Upstream as UpstreamSection
from proxy.auth import Caller, ClientKeys
from proxy.blueprints.chat import chat_blueprint
from proxy.blueprints.embeddings import embeddings_blueprint
from proxy.blueprints.forward import Forwarder, Upstream
from proxy.blueprints.models import models_blueprint
from proxy.blueprints.operations import health_blueprint, metrics_blueprint, openapi_blueprint
from proxy.blueprints.own_host import answer_to_own_host_only
from proxy.blueprints.passthrough import passthrough_blueprint
from proxy.blueprints.status import UpstreamFacts, WorkerStatus, status_blueprint
from proxy.blueprints.uploads import uploads_blueprint
from proxy.caller_watch import CallerWatch
from proxy.descriptors import idle_most, requests_most
from proxy.hooks import Hooks
from proxy.lean_flask import LeanFlask
from proxy.limits import RateLimits, Slots
from proxy.observability.metrics import Metrics
from proxy.observability.metrics_folder import folder_of_environment
from proxy.observability.metrics_page import CONTENT_TYPE, MetricsPage
from proxy.observability.request_log import AccessLog
from proxy.openapi import Guard, build_document
from proxy.routing import ModelMap
from proxy.token_sources import build_source, build_store, is_single_active
from proxy.tokens.holder import TokenHolder
from proxy.tokens.listener import TokenListener
from proxy.upstream_clients import build_batches, build_client
from proxy.upstreams.client import UpstreamClient
from proxy.upstreams.event_loop import EventLoopThread

if TYPE_CHECKING:
    from proxy.observability.tracing import Tracing


@dataclass(slots=True)
class Parts:
    """What a worker holds besides its routes: `app.extensions["llm_proxy"]`, for gunicorn.conf.py and the workers."""

    holders: Mapping[str, TokenHolder]
    upstreams: Mapping[str, UpstreamClient]
    event_loop: EventLoopThread
    tracing: "Tracing | None" = None
    is_ending: Callable[[], bool] = lambda: False  # the worker takes nobody new; gunicorn.conf.py sets it
    tell_refused: Callable[[str, int, str, int], None] = lambda *_: None  # see Hooks; for the workers

    def close(self) -> None:
        """Close all, in turn, whatever one of them raises."""
        with ExitStack() as last_first:
            if self.tracing is not None:
                last_first.callback(self.tracing.close)
            last_first.callback(self.event_loop.close)
            for client in self.upstreams.values():
                last_first.callback(client.close)
            for holder in self.holders.values():
                last_first.callback(holder.close)


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
    upstreams = _upstreams(settings.upstreams, parts)
    paths = [prefix + version for prefix in settings.server.url_prefixes for version in VERSION_PATHS]
    most = requests_most(settings.server.worker_requests)
    slots = Slots(most)
    hooks = Hooks(
        _client_keys(settings.client_keys),
        _rates(settings.token_store),
        slots,
        AccessLog(level=settings.logging.level, line_format=settings.logging.format),
        metrics,
        paths=paths,
        allowed_origins=settings.server.allowed_origins,
        tracing=parts.tracing,
    )
    hooks.install(app)
    parts.tell_refused = hooks.tell_refused
    forwarder = Forwarder(upstreams, CallerWatch(), max_body_bytes=settings.server.max_body_bytes)
    for blueprint in (
        chat_blueprint(forwarder),
        embeddings_blueprint(forwarder),
        passthrough_blueprint(forwarder),
        uploads_blueprint(forwarder, max_body_bytes=settings.server.max_body_bytes),
        models_blueprint(upstreams, forwarder),
    ):
        hooks.guard(blueprint)
        _register_everywhere(app, blueprint, settings.server.url_prefixes)
    used = {section.token_source for section in settings.upstreams}
    used_holders = {name: holder for name, holder in parts.holders.items() if name in used}
    facts = [_facts(section) for section in settings.upstreams]
    status = WorkerStatus(parts.holders, facts, slots, requests_most=most, is_ending=lambda: parts.is_ending())
    app.register_blueprint(health_blueprint(status.not_ready))
    for blueprint in (
        status_blueprint(status),
        metrics_blueprint(MetricsPage(metrics, used_holders).text, CONTENT_TYPE),
    ):
        if settings.server.is_loopback:
            answer_to_own_host_only(blueprint)
        else:
            hooks.guard_operations(blueprint)
        app.register_blueprint(blueprint)
    app.register_blueprint(openapi_blueprint(cache(lambda: _document(app, hooks, settings, paths))))
    app.extensions["llm_proxy"] = parts
    return app


def _document(app: Flask, hooks: Hooks, settings: Settings, paths: Sequence[str]) -> Mapping[str, Any]:
    """Of all routes. A blueprint that the hooks guard is registered under several names."""
    key: Guard = "key" if settings.client_keys else "no key"
    names = {name: blueprint.name for name, blueprint in app.blueprints.items()}
    guards = {name: key for name, given in names.items() if given in hooks.guarded}
    guards |= {name: "admin key" for name, given in names.items() if given in hooks.guarded_operations}
    return build_document(app.url_map.iter_rules(), prefixes=paths, guards=guards)


def _rates(store: TokenStore) -> RateLimits:
    """Where the hosts share a Redis for their tokens, they count in it too."""
    if store.type != "redis" or store.url is None:
        return RateLimits()
    # Imported where they are used: they take 20 MB in each worker, and most have no use for them.
    from proxy.redis_client import connect
    from proxy.shared_rates import WAIT_S, SharedRates

    return RateLimits(SharedRates(connect(store.url.reveal(), store.ca_bundle, timeout_s=WAIT_S)))


def _tracing(section: TracingSection | None) -> "Tracing | None":
    if section is None:
        return None
    # An extra, which is not installed everywhere.
    from proxy.observability.span_export import build_provider
    from proxy.observability.tracing import Tracing

    return Tracing(build_provider(section.otlp_endpoint))


def build_parts(settings: Settings, listener: TokenListener | None = None) -> Parts:
    """The holders, the clients, the event loop and the tracing; nothing of it has started."""
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
    kept = idle_most(requests_most(settings.server.worker_requests), len(settings.upstreams))
    clients = {
        section.name: build_client(section, _holder(section, holders), idle_most=kept) for section in settings.upstreams
    }
    return Parts(holders, clients, EventLoopThread(), _tracing(settings.tracing))


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


def _upstreams(sections: Sequence[UpstreamSection], parts: Parts) -> list[Upstream]:
    """Each with its second, which has none: a request goes one step and no further."""
    by_name = {section.name: _upstream(section, parts) for section in sections}
    seconds = {section.name: by_name.get(section.fail_over_to or "") for section in sections}
    return [replace(upstream, second=seconds[name]) for name, upstream in by_name.items()]


def _upstream(section: UpstreamSection, parts: Parts) -> Upstream:
    return Upstream(
        models=ModelMap(section.name, section.models),
        client=parts.upstreams[section.name],
        strip_fields=section.strip_fields,
        set_fields=dict(section.set_fields),
        keepalive_s=section.keepalive_comment_s,
        batches=build_batches(section, _holder(section, parts.holders), parts.event_loop),
    )


def _facts(section: UpstreamSection) -> UpstreamFacts:
    return UpstreamFacts(section.name, urlsplit(section.base_url).netloc, section.models, section.token_source)


def _holder(section: UpstreamSection, holders: Mapping[str, TokenHolder]) -> TokenHolder | None:
    return None if section.token_source is None else holders[section.token_source]
