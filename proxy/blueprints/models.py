"""Models: the upstreams' lists joined, under the names that callers use."""

import threading
from collections.abc import Sequence
from typing import Any

import jiter
from cachetools import TTLCache
from flask import Blueprint, Response, jsonify
from loguru import logger

from proxy.blueprints.forward import Forwarder, Upstream
from proxy.errors import CallerGone, ModelNotFound, ProxyError, UpstreamAnswer, UpstreamTimeout, UpstreamUnavailable
from proxy.request_state import current
from proxy.routing import ModelMap, is_allowed, resolve
from proxy.upstreams.answer import read_whole
from proxy.upstreams.exchange import Exchange

PATH = "/models"
LIST_KEPT_S = 60
FAILURE_KEPT_S = 30
ANSWER_WITHIN_S = 5.0  # then an upstream's list is left out: it holds those of the others up

Entry = dict[str, Any]


def models_blueprint(upstreams: Sequence[Upstream], forwarder: Forwarder) -> Blueprint:
    blueprint = Blueprint("models", __name__)
    lists = ModelLists(upstreams)

    def watched() -> Exchange:
        exchange = Exchange()
        forwarder.watch_caller(exchange)
        return exchange

    @blueprint.get(PATH)
    def list_models() -> Response:
        return jsonify({"object": "list", "data": list(filter(_is_callers, lists.joined(watched())))})

    @blueprint.get(f"{PATH}/<path:model>")
    def retrieve_model(model: str) -> Response:
        entry = lists.entry(model, watched())
        if not _is_callers(entry):
            raise ModelNotFound("No upstream serves this model.", param="model")
        return jsonify(entry)

    return blueprint


def _is_callers(entry: Entry) -> bool:
    """Whether the caller may use that model; what a key may not use is not shown to it either."""
    caller = current().caller
    return caller is None or is_allowed(caller.models, entry["id"])


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
        self._ask_all(exchange)
        entries: dict[str, Entry] = {}
        failed: ProxyError | None = None
        for upstream in self._upstreams:
            listed: list[Entry] = []
            try:
                listed = self._listed(upstream)
            except ProxyError as error:
                logger.info("upstream {}: no list of models ({})", upstream.models.upstream, error.cause or error.code)
                failed = error
            for entry in as_callers_see(upstream.models, listed):
                entries.setdefault(entry["id"], entry)
        if failed is not None and not entries:
            raise failed
        return list(entries.values())

    def entry(self, model: str, exchange: Exchange) -> Entry:
        """One model of the joined list, or by the config alone where its upstream has no list.

        Raises ModelNotFound, and the upstream's error where its list, which may have the model, cannot be had.
        """
        for entry in self.joined(exchange):
            if entry["id"] == model:
                return entry
        name, _ = resolve([upstream.models for upstream in self._upstreams], model)
        upstream = next(upstream for upstream in self._upstreams if upstream.models.upstream == name)
        if self._listed(upstream):
            raise ModelNotFound("No upstream serves this model.", param="model")
        return _unlisted(model, name)

    def _listed(self, upstream: Upstream) -> list[Entry]:
        """What was found last. Raises why there is nothing."""
        name = upstream.models.upstream
        with self._lock:
            failed = self._failed.get(name) or UpstreamUnavailable(cause="no list of models any more")
            kept = self._kept.get(name)
        if kept is None:
            raise failed
        return kept

    def _ask_all(self, exchange: Exchange) -> None:
        """Ask those of whom nothing is known, side by side; what they answer or lack is kept."""
        with self._lock:
            known = {*self._kept, *self._failed}
        asked = [(upstream, Exchange()) for upstream in self._upstreams if upstream.models.upstream not in known]
        if not asked:
            return

        def break_off() -> None:
            for _, own in asked:
                own.break_off()

        threads = [threading.Thread(target=self._ask, args=each, daemon=True) for each in asked]
        alarm = threading.Timer(ANSWER_WITHIN_S, break_off)
        alarm.daemon = True
        exchange.attach(break_off)
        for thread in (alarm, *threads):
            thread.start()
        for thread in threads:
            thread.join()
        alarm.cancel()
        exchange.detach()
        if exchange.broken_off:
            with self._lock:
                for upstream, _ in asked:
                    self._failed.pop(upstream.models.upstream, None)  # it was the caller who left
            raise CallerGone

    def _ask(self, upstream: Upstream, exchange: Exchange) -> None:
        listed: list[Entry] | None = None
        failed: ProxyError | None = None
        try:
            listed = _ask(upstream, exchange)
        except CallerGone:
            failed = UpstreamTimeout(cause="no list of models in time")
        except ProxyError as error:
            failed = error
        except Exception as error:
            failed = UpstreamUnavailable(cause=type(error).__name__)
        with self._lock:
            if listed is not None:
                self._kept[upstream.models.upstream] = listed
            elif failed is not None:
                self._failed[upstream.models.upstream] = failed


def as_callers_see(models: ModelMap, listed: Sequence[Entry]) -> list[Entry]:
    """An upstream's entries as callers may name them: under their own names where a wildcard lets them through, and
    once more under each alias, all members kept."""
    by_id = {entry["id"]: entry for entry in listed}
    seen = [entry for entry in listed if models.resolve(entry["id"]) == entry["id"]]
    for alias in models.aliases():
        target = models.resolve(alias) or alias
        if alias not in by_id or target != alias:
            seen.append({**by_id[target], "id": alias} if target in by_id else _unlisted(alias, models.upstream))
    return seen


def _unlisted(model: str, upstream: str) -> Entry:
    return {"id": model, "object": "model", "created": 0, "owned_by": upstream}


def _ask(upstream: Upstream, exchange: Exchange) -> list[Entry]:
    """The upstream's own list; an empty one where it has none (4xx, but for 429)."""
    try:
        answer = upstream.client.send("GET", PATH, content=b"", fields=[], exchange=exchange)
    except UpstreamAnswer as error:
        if error.status < 500 and not error.takes_nobody:
            return []
        raise
    try:
        entries = jiter.from_json(read_whole(answer))["data"]
        return [entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str)]
    except (ValueError, TypeError, KeyError) as error:
        raise UpstreamUnavailable(cause="a list of models that cannot be read") from error
