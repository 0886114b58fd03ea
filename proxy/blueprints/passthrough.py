"""The JSON routes that need nothing of their own: a model name in, the upstream's answer out."""

from collections.abc import Callable

from flask import Blueprint, Response

from proxy.blueprints.forward import Forwarder, Kind

ROUTES: dict[str, Kind] = {
    "/completions": "completion",
    "/responses": "response",
    "/rerank": "json",
    "/moderations": "json",
    "/images/generations": "json",
    "/audio/speech": "binary",
}


def passthrough_blueprint(forwarder: Forwarder) -> Blueprint:
    blueprint = Blueprint("passthrough", __name__)
    for path, kind in ROUTES.items():
        blueprint.add_url_rule(path, path.strip("/").replace("/", "_"), _view(forwarder, path, kind), methods=["POST"])
    return blueprint


def _view(forwarder: Forwarder, path: str, kind: Kind) -> Callable[[], Response]:
    def create() -> Response:
        return forwarder.forward(path, kind=kind)

    return create
