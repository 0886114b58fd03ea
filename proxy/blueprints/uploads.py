"""Sound to text: forms with a file, sent on while they still come, and answers of several kinds.

`caller_body` reads the bytes and `form` what they say. As soon as the model is known the request goes to its upstream;
what has come is kept, as the bodies of other routes are, for the case that it has to be sent once more.
"""

from collections.abc import Callable, Iterator
from functools import partial

from flask import Blueprint, Response

from proxy.blueprints.caller_body import declared_bytes, read_pieces
from proxy.blueprints.forward import Forwarder, Kind, Upstream, respond
from proxy.body import JsonBody
from proxy.errors import ProxyError
from proxy.form import FormReader, boundary_of, model_part, rewritten
from proxy.request_state import RequestState, current
from proxy.upstreams.answer import Answer
from proxy.upstreams.content import StreamedContent

PATHS = ("/audio/transcriptions", "/audio/translations")


def uploads_blueprint(forwarder: Forwarder, *, max_body_bytes: int) -> Blueprint:
    blueprint = Blueprint("uploads", __name__)
    for path in PATHS:
        view = _view(forwarder, path, max_body_bytes)
        blueprint.add_url_rule(path, path.strip("/").replace("/", "_"), view, methods=["POST"])
    return blueprint


def _view(forwarder: Forwarder, path: str, most_bytes: int) -> Callable[[], Response]:
    def create() -> Response:
        upload = Upload(current(), most_bytes)
        try:
            # Of a form only the model is known by now.
            body = JsonBody(b"", {}, upload.read_model(), stream=False)
            accepted = forwarder.route(body, ("Content-Type", upload.content_type))
            answer = accepted.ask(lambda: accepted.send_once(path, upload.content(accepted.upstream, accepted.model)))
        except ProxyError as error:
            if not upload.is_whole:
                forwarder.unwatch_caller()
                error.ends_connection = True
            raise
        finally:
            upload.close()
        return respond(accepted, answer, kind=_kind_of(answer))

    return create


class Upload:
    """A caller's form on its way. Raises InvalidRequest, and what read_pieces does."""

    def __init__(self, state: RequestState, most_bytes: int) -> None:
        self.content_type = state.environ.get("CONTENT_TYPE", "")
        self.is_whole = False  # nothing more comes, and nothing is missing
        self._boundary = boundary_of(self.content_type)
        self._form = FormReader(self._boundary)
        self._length = declared_bytes(state.environ)
        self._coming = read_pieces(state, most_bytes)
        self._come: list[bytes] = []
        self._come_bytes = 0

    def read_model(self) -> str:
        while self._form.model is None:
            self._read()
        return self._form.model

    def content(self, upstream: Upstream, model: str) -> StreamedContent:
        """What an upstream is to get: the bytes as they come, unless its config asks for a change."""
        own = self.read_model()
        changes_fields = bool(upstream.strip_fields or upstream.set_fields)
        if model == own and not changes_fields:
            return StreamedContent(self._pieces, self._length)
        length = None
        if self._length is not None and not changes_fields:
            head = self._form.model_part
            length = self._length - len(head) - len(own.encode()) + len(model_part(head, model))
        change = partial(
            rewritten,
            boundary=self._boundary,
            model=model,
            strip_fields=upstream.strip_fields,
            set_fields=upstream.set_fields,
        )
        return StreamedContent(lambda: change(self._pieces()), length)

    def close(self) -> None:
        self._coming.close()

    def _pieces(self) -> Iterator[bytes]:
        at = 0
        while True:
            while at < len(self._come):
                yield self._come[at]
                at += 1
            if self.is_whole:
                return
            if not self._read():
                yield b""

    def _read(self) -> bool:
        """Whether more has come. It is checked before anybody gets it: an upstream must not see a form as whole that
        is not, nor one of which another part names another model."""
        piece = next(self._coming, None)
        if piece:
            self._form.feed(piece)
            self._come.append(piece)
            self._come_bytes += len(piece)
        if piece is None or self._come_bytes == self._length:
            self._form.finish()
            self.is_whole = True
        return bool(piece)


def _kind_of(answer: Answer) -> Kind:
    """Text comes in several formats, JSON being one of them."""
    is_json = any(name.lower() == "content-type" and "json" in value.lower() for name, value in answer.fields)
    return "json" if is_json else "binary"
