"""Models: the upstreams' lists joined, under the names that callers use."""

import threading
from collections.abc import Sequence
from typing import Any

import jiter
from cachetools import TTLCache
from flask import Blueprint, Response, jsonify
from loguru import logger

from proxy.blueprints.forward import Forwarder, Upstream
from proxy.errors import CallerGone, ModelNotFound, ProxyError, UpstreamAnswer, UpstreamUnavailable
from proxy.relay import read_whole
from proxy.request_state import current
from proxy.routing import ModelMap, is_allowed
from proxy.upstreams.exchange import Exchange

PATH = "/models"
LIST_KEPT_S = 60
FAILURE_KEPT_S = 5

Entry = dict[str, Any]


def models_blueprint(upstreams: Sequence[Upstream], forwarder: Forwarder) -> Blueprint:
    blueprint = Blueprint("models", __name__)
    lists = ModelLists(upstreams)

    def allowed() -> list[Entry]:
        exchange = Exchange()
        forwarder.watch_caller(exchange)
        caller = current().caller
        entries = lists.joined(exchange)
        return [entry for entry in entries if caller is None or is_allowed(caller.models, entry["id"])]

    @blueprint.get(PATH)
    def list_models() -> Response:
        return jsonify({"object": "list", "data": allowed()})

    @blueprint.get(f"{PATH}/<path:model>")
    def retrieve_model(model: str) -> Response:
        for entry in allowed():
            if entry["id"] == model:
                return jsonify(entry)
        raise ModelNotFound("No upstream serves this model.", param="model")

    return blueprint


class ModelLists:
    """Each upstream's list, kept for a minute; the config's names where it has none."""

    def __init__(self, upstreams: Sequence[Upstream]) -> None:
        self._upstreams = upstreams
        size = max(1, len(upstreams))
        self._kept: TTLCache[str, list[Entry]] = TTLCache(size, ttl=LIST_KEPT_S)
        self._failed: TTLCache[str, ProxyError] = TTLCache(size, ttl=FAILURE_KEPT_S)
        self._lock = threading.Lock()  # cachetools' caches are not safe for threads by themselves

    def joined(self, exchange: Exchange) -> list[Entry]:
        """All models under the callers' names; of two upstreams the first, as it is the one that is asked.

        Raises an upstream's error where that leaves nothing to list.
        """
        entries: dict[str, Entry] = {}
        failed: ProxyError | None = None
        for upstream in self._upstreams:
            listed: list[Entry] = []
            try:
                listed = self._listed(upstream, exchange)
            except CallerGone:
                raise
            except ProxyError as error:
                logger.info("upstream {}: no list of models ({})", upstream.models.upstream, error.cause or error.code)
                failed = error
            for entry in as_callers_see(upstream.models, listed):
                entries.setdefault(entry["id"], entry)
        if failed is not None and not entries:
            raise failed
        return list(entries.values())

    def _listed(self, upstream: Upstream, exchange: Exchange) -> list[Entry]:
        name = upstream.models.upstream
        with self._lock:
            kept, failed = self._kept.get(name), self._failed.get(name)
        if kept is not None:
            return kept
        if failed is not None:
            raise failed
        try:
            listed = _ask(upstream, exchange)
        except ProxyError as error:
            if not isinstance(error, CallerGone):
                with self._lock:
                    self._failed[name] = error
            raise
        with self._lock:
            self._kept[name] = listed
        return listed


def as_callers_see(models: ModelMap, listed: Sequence[Entry]) -> list[Entry]:
    """An upstream's entries as callers may name them: under their own names where a wildcard lets them through, and
    once more under each alias, all members kept."""
    by_id = {entry["id"]: entry for entry in listed}
    seen = [entry for entry in listed if models.resolve(entry["id"]) == entry["id"]]
    for alias in models.aliases():
        target = models.resolve(alias) or alias
        if alias not in by_id or target != alias:
            known = by_id.get(target, {"object": "model", "created": 0, "owned_by": models.upstream})
            seen.append({**known, "id": alias})
    return seen


def _ask(upstream: Upstream, exchange: Exchange) -> list[Entry]:
    """The upstream's own list; an empty one where it has none (4xx)."""
    try:
        answer = upstream.client.send("GET", PATH, content=b"", fields=[], exchange=exchange)
    except UpstreamAnswer as error:
        if error.status < 500:
            return []
        raise
    try:
        document = jiter.from_json(read_whole(answer))
        return [entry for entry in document["data"] if isinstance(entry["id"], str)]
    except (ValueError, TypeError, KeyError) as error:
        raise UpstreamUnavailable(cause="a list of models that cannot be read") from error
