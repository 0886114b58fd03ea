"""The WSGI application: makes each part once and maps every route. `server` serves it."""

from collections.abc import Callable
from typing import Any

from flask import Flask, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException

from sandbox.answers.catalog import answer_model, answer_models, answer_moderation
from sandbox.answers.chat import answer_chat
from sandbox.answers.completions import answer_completion
from sandbox.answers.media import answer_image, answer_speech, answer_upload
from sandbox.answers.responses import answer_response
from sandbox.answers.shape import Answer
from sandbox.answers.vectors import answer_embeddings, answer_rerank
from sandbox.control import CONTROL_PREFIX, build_control
from sandbox.exchange import Exchange
from sandbox.faults import Switches
from sandbox.issuer import Issuer
from sandbox.journal import Entry, Journal
from sandbox.tokens import TokenMint
from sandbox.upstream import Upstream, answer_unknown_route, answer_wrong_method

__all__ = ["CONTROL_PREFIX", "create_app"]

ErrorView = Callable[[HTTPException], ResponseReturnValue]

_JSON_ROUTES = {
    "/v1/chat/completions": answer_chat,
    "/v1/completions": answer_completion,
    "/v1/responses": answer_response,
    "/v1/embeddings": answer_embeddings,
    "/v1/rerank": answer_rerank,
    "/v1/moderations": answer_moderation,
    "/v1/images/generations": answer_image,
    "/v1/audio/speech": answer_speech,
}
_UPLOAD_ROUTES = ("/v1/audio/transcriptions", "/v1/audio/translations")


def create_app(journal: Journal, mint: TokenMint) -> Flask:
    """Build the application around one journal and one mint."""
    app = Flask("sandbox", static_folder=None)
    app.url_map.merge_slashes = False  # "/v1//models" is unknown, not redirected
    switches = Switches()
    exchange, upstream = Exchange(journal, switches), Upstream(mint, journal)
    app.register_blueprint(build_control(journal, switches, mint))
    _add_issuer(app, exchange, Issuer(mint))
    _add_upstream(app, exchange, upstream)
    app.register_error_handler(HTTPException, _build_error_view(exchange, upstream))
    return app


def _add_issuer(app: Flask, exchange: Exchange, issuer: Issuer) -> None:
    for path, view in (("/token", issuer.answer_json), ("/oauth/token", issuer.answer_oauth)):
        app.add_url_rule(path, path, exchange.wrap("issuer", view), methods=["POST"])


def _add_upstream(app: Flask, exchange: Exchange, upstream: Upstream) -> None:
    for path, answer in _JSON_ROUTES.items():
        app.add_url_rule(path, path, exchange.wrap("upstream", upstream.guard_json(answer)), methods=["POST"])
    for path in _UPLOAD_ROUTES:
        view = upstream.guard(lambda entry: answer_upload(entry.body or b""))
        app.add_url_rule(path, path, exchange.wrap("upstream", view), methods=["POST"])
    # GET with a body is tolerated, so these do not read it.
    models = upstream.guard(lambda _: answer_models())
    app.add_url_rule("/v1/models", "models", exchange.wrap("upstream", models))
    model = upstream.guard(_answer_model)
    app.add_url_rule("/v1/models/<path:name>", "model", exchange.wrap("upstream", model))


def _answer_model(entry: Entry) -> Answer:
    return answer_model(entry.path.partition("?")[0].removeprefix("/v1/models/"))


def _build_error_view(exchange: Exchange, upstream: Upstream) -> ErrorView:
    """Build the view for what no route takes: noted and answered by the upstream, except under control."""
    unknown = exchange.wrap("upstream", upstream.guard(answer_unknown_route))
    wrong_method = exchange.wrap("upstream", upstream.guard(answer_wrong_method))

    def error_view(error: HTTPException) -> Any:
        if request.path.startswith(CONTROL_PREFIX):
            return {"error": error.description}, error.code or 500
        return wrong_method() if error.code == 405 else unknown()

    return error_view
