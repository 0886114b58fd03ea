"""Embeddings: passed through, split where the upstream takes few inputs at a time, base64 where asked for."""

from flask import Blueprint, Response

from proxy.blueprints.forward import Forward, Forwarder, note_usage, respond
from proxy.embedding_answer import to_base64
from proxy.upstreams.answer import Answer

PATH = "/embeddings"


def embeddings_blueprint(forwarder: Forwarder) -> Blueprint:
    blueprint = Blueprint("embeddings", __name__)

    @blueprint.post(PATH)
    def create_embedding() -> Response:
        accepted = forwarder.accept()
        as_base64 = accepted.body.members.get("encoding_format") == "base64"
        answer = accepted.ask(lambda: _create(accepted, as_base64))
        if isinstance(answer, bytes):
            note_usage(accepted.state, answer)
            return Response(answer, content_type="application/json")
        return respond(accepted, answer, convert=to_base64 if as_base64 else None)

    return blueprint


def _create(accepted: Forward, as_base64: bool) -> Answer | bytes:
    """The upstream's answer, or the joined one of several where it takes fewer inputs at a time.

    Where one part turns to the second upstream, all do: vectors of two models must not stand side by side.
    """
    batches = accepted.upstream.batches
    if batches is None or not batches.must_split(accepted.body.members):
        return accepted.send_once(PATH)
    members = accepted.upstream.members(accepted.body, accepted.model)
    return batches.create(members, fields=accepted.fields, exchange=accepted.exchange, as_base64=as_base64)
