"""Flask without what no route of ours uses: sessions, signals, async views, matching by host, corrections of headers.

Each of these runs on every request; together they cost a tenth of a small chat completion (`docs/decisions/0006`).
"""

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Any, TypeVar
from wsgiref.types import StartResponse, WSGIEnvironment

from flask import Flask, Request, Response, request
from flask.sessions import NullSession, SessionInterface
from werkzeug.datastructures import Headers
from werkzeug.routing import MapAdapter, Rule

Function = TypeVar("Function", bound=Callable[..., Any])


class LeanResponse(Response):
    """Its headers leave as they were set; `Content-Length` is set with the body."""

    def get_wsgi_headers(self, environ: WSGIEnvironment) -> Headers:
        return self.headers

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response(self.status, self.headers.to_wsgi_list())
        return self.get_app_iter(environ)


class _NoSessions(SessionInterface):
    _none = NullSession()

    def open_session(self, app: Flask, request: Request) -> NullSession:
        return self._none


class _Found:
    """Stands for werkzeug's adapter where its answer is known."""

    def __init__(self, rule: Rule) -> None:
        self._found = rule, dict[str, Any]()

    def match(self, **_: Any) -> tuple[Rule, dict[str, Any]]:
        return self._found


class LeanFlask(Flask):
    response_class = LeanResponse
    session_interface = _NoSessions()

    def __init__(self, name: str) -> None:
        super().__init__(name, static_folder=None)

    def ensure_sync(self, func: Function) -> Function:
        return func

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        if request is None:
            return None  # nobody builds URLs
        found: Any = self._found.get((request.method, request.path))
        return found or self.url_map.bind("", path_info=request.path, default_method=request.method)

    @cached_property
    def _found(self) -> dict[tuple[str, str], _Found]:
        """By method and path, of the routes without variables; made when the first request comes."""
        # From the last to the first, as the first one of a path is to win: so it is in werkzeug.
        rules = [rule for rule in self.url_map.iter_rules() if not rule.arguments][::-1]
        # Not for OPTIONS, which Flask answers by asking the adapter for the other methods.
        return {(name, rule.rule): _Found(rule) for rule in rules for name in (rule.methods or set()) - {"OPTIONS"}}

    def make_default_options_response(self) -> Response:
        response = super().make_default_options_response()
        response.content_length = 0  # it would leave in chunks else
        return response

    def preprocess_request(self) -> Any:
        """What precedes each request, then what precedes those of its blueprint; none of ours has another above it."""
        for name in (None, *request.blueprints):
            for function in self.before_request_funcs.get(name, ()):
                answer = function()
                if answer is not None:
                    return answer
        return None

    def full_dispatch_request(self) -> Response:
        try:
            answer = self.preprocess_request()
            if answer is None:
                answer = self.dispatch_request()
        except Exception as error:
            answer = self.handle_user_exception(error)
        return self.process_response(self.make_response(answer))

    def process_response(self, response: Response) -> Response:
        """What follows each request; blueprints have nothing of their own."""
        for function in reversed(self.after_request_funcs[None]):
            response = function(response)
        return response

    def do_teardown_request(self, exc: BaseException | None = None) -> None:
        """Nobody waits for it."""

    def do_teardown_appcontext(self, exc: BaseException | None = None) -> None:
        """Nobody waits for it."""


class Finishing:
    """A body that tells when it is over: its last byte is out, or the caller is gone. gunicorn calls close()."""

    def __init__(self, body: Iterable[Any], finish: Callable[[], None]) -> None:
        self._body = body
        self.close = finish

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)
