"""Embeddings: passed through, split where the upstream takes few inputs at a time, base64 where asked for."""

from flask import Blueprint, Response

from proxy.blueprints.forward import Forward, Forwarder, respond
from proxy.embedding_answer import to_base64
from proxy.upstreams.answer import Answer

PATH = "/embeddings"


def embeddings_blueprint(forwarder: Forwarder) -> Blueprint:
    blueprint = Blueprint("embeddings", __name__)

    @blueprint.post(PATH)
    def create_embedding() -> Response:
        accepted = forwarder.accept()
        convert = to_base64 if accepted.body.members.get("encoding_format") == "base64" else None
        answer = accepted.ask(lambda: _create(accepted))
        if isinstance(answer, bytes):
            return Response(answer if convert is None else convert(answer), content_type="application/json")
        return respond(accepted, answer, convert=convert)

    return blueprint


def _create(accepted: Forward) -> Answer | bytes:
    """The upstream's answer, or the joined one of several where it takes fewer inputs at a time."""
    batches = accepted.upstream.batches
    if batches is None or not batches.must_split(accepted.body.members):
        return accepted.send_once(PATH)
    members = accepted.upstream.members(accepted.body, accepted.model)
    return batches.create(members, fields=accepted.fields, exchange=accepted.exchange)
