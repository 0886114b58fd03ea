"""What operators and their tools ask: does the process live, is it ready, how does it stand."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flask import Blueprint, Response, jsonify

from proxy.limits import Slots
from proxy.tokens.holder import TokenHolder


def health_blueprint(holders: Mapping[str, TokenHolder], is_ending: Callable[[], bool]) -> Blueprint:
    """Open to all, and outside every limit: a load balancer has no key. `is_ending`: the worker takes nobody new."""
    blueprint = Blueprint("health", __name__)

    @blueprint.get("/healthz")
    def healthz() -> Response:
        return jsonify({"status": "ok"})

    @blueprint.get("/readyz")
    def readyz() -> Response:
        lacking = [name for name, holder in holders.items() if not _is_ready(holder)]
        if not lacking and not is_ending():
            return jsonify({"status": "ready"})
        reason = f"no usable credential from: {', '.join(sorted(lacking))}" if lacking else "shutting down"
        response = jsonify({"status": "not ready", "reason": reason})
        response.status_code = 503
        response.headers["Retry-After"] = "1"
        return response

    return blueprint


def _is_ready(holder: TokenHolder) -> bool:
    holder.start()  # a worker that has had no request yet would else never become ready
    return holder.usable_token() is not None


def status_blueprint(holders: Mapping[str, TokenHolder], upstreams: Sequence[str], slots: Slots) -> Blueprint:
    blueprint = Blueprint("status", __name__)

    @blueprint.get("/status")
    def status() -> Response:
        sources = {
            name: {"state": holder.state(), "seconds_to_expiry": _rounded(holder.seconds_to_expiry())}
            for name, holder in holders.items()
        }
        return jsonify({"token_sources": sources, "upstreams": list(upstreams), "requests_running": slots.running})

    return blueprint


def metrics_blueprint(text: Callable[[], bytes], content_type: str) -> Blueprint:
    """`text` gives what Prometheus reads, of that content type."""
    blueprint = Blueprint("metrics", __name__)

    @blueprint.get("/metrics")
    def metrics() -> Response:
        return Response(text(), content_type=content_type)

    return blueprint


def openapi_blueprint(document: Callable[[], Mapping[str, Any]]) -> Blueprint:
    """Open to all: of the config it tells the prefixes alone, which callers know."""
    blueprint = Blueprint("openapi", __name__)

    @blueprint.get("/openapi.json")
    def openapi() -> Response:
        return jsonify(document())

    return blueprint


def _rounded(seconds: float | None) -> float | None:
    """Whole seconds; null for no token and for one that never expires, which JSON has no number for."""
    return None if seconds is None or seconds == float("inf") else round(seconds)
