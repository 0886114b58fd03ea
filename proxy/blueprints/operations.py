"""What operators' tools ask: does the process live, is it ready, its metrics, its routes. `status` has the rest."""

from collections.abc import Callable, Mapping
from typing import Any

from flask import Blueprint, Response, jsonify


def health_blueprint(not_ready: Callable[[], str | None]) -> Blueprint:
    """Open to all, and outside every limit: a load balancer has no key. `not_ready`: why, or None."""
    blueprint = Blueprint("health", __name__)

    @blueprint.get("/healthz")
    def healthz() -> Response:
        return jsonify({"status": "ok"})

    @blueprint.get("/readyz")
    def readyz() -> Response:
        reason = not_ready()
        if reason is None:
            return jsonify({"status": "ready"})
        response = jsonify({"status": "not ready", "reason": reason})
        response.status_code = 503
        response.headers["Retry-After"] = "1"
        return response

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
