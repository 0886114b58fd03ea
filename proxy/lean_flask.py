"""Flask without what no route of ours uses: sessions, async views, matching by host, corrections of headers.

Each of these runs on every request; together they cost a tenth of a small chat completion (`docs/decisions/0006`).
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar
from wsgiref.types import WSGIEnvironment

from flask import Flask, Request, Response
from flask.sessions import NullSession, SessionInterface
from werkzeug.datastructures import Headers
from werkzeug.routing import MapAdapter

Function = TypeVar("Function", bound=Callable[..., Any])


class LeanResponse(Response):
    """Its headers leave as they were set; `Content-Length` is set with the body."""

    def get_wsgi_headers(self, environ: WSGIEnvironment) -> Headers:
        return self.headers


class _NoSessions(SessionInterface):
    _none = NullSession()

    def open_session(self, app: Flask, request: Request) -> NullSession:
        return self._none


class LeanFlask(Flask):
    response_class = LeanResponse
    session_interface = _NoSessions()

    def ensure_sync(self, func: Function) -> Function:
        return func

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        if request is None:
            return None  # nobody builds URLs
        return self.url_map.bind("", path_info=request.path, default_method=request.method)


class Finishing:
    """A body that tells when it is over: its last byte is out, or the caller is gone. gunicorn calls close()."""

    def __init__(self, body: Iterable[Any], finish: Callable[[], None]) -> None:
        self._body = body
        self.close = finish

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)
