"""Embeddings: passed through, split where the upstream takes few inputs at a time, base64 where asked for."""

from flask import Blueprint, Response

from proxy.blueprints.forward import Forward, Forwarder, respond
from proxy.embedding_answer import to_base64
from proxy.upstreams.embedding_batches import EmbeddingBatches

PATH = "/embeddings"


def embeddings_blueprint(forwarder: Forwarder) -> Blueprint:
    blueprint = Blueprint("embeddings", __name__)

    @blueprint.post(PATH)
    def create_embedding() -> Response:
        accepted = forwarder.accept()
        convert = to_base64 if accepted.body.members.get("encoding_format") == "base64" else None
        batches = accepted.upstream.batches
        if batches is None or not batches.must_split(accepted.body.members):
            return respond(accepted, accepted.send(PATH), convert=convert)
        joined = _create_in_batches(accepted, batches)
        return Response(joined if convert is None else convert(joined), content_type="application/json")

    return blueprint


def _create_in_batches(accepted: Forward, batches: EmbeddingBatches) -> bytes:
    members = accepted.upstream.members(accepted.body, accepted.model)
    return batches.create(members, fields=accepted.fields, exchange=accepted.exchange)
