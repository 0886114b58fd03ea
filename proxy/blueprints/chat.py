"""Chat completions, the route that most callers use; streamed or whole."""

from flask import Blueprint, Response

from proxy.blueprints.forward import Forwarder

PATH = "/chat/completions"


def chat_blueprint(forwarder: Forwarder) -> Blueprint:
    blueprint = Blueprint("chat", __name__)

    @blueprint.post(PATH)
    def create_chat_completion() -> Response:
        return forwarder.forward(PATH, kind="completion")

    return blueprint
