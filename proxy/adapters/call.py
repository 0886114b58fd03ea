"""One request's way through an adapter: what to send, and what becomes of the answer; no I/O.

Both clients of an upstream walk it, and the doctor. Whatever an adapter raises is told by the adapter's name, the
error's type and its place, never by its text, which may quote a prompt.
"""

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import walk_tb
from typing import Any
from urllib.parse import unquote, urlencode

import jiter
from loguru import logger

from proxy import sse
from proxy.adapters.base import NOT_SERVED, AdaptedRequest, Adapter, ApiError, error_object
from proxy.adapters.chat_stream import wants_usage
from proxy.adapters.shapes import chunks_of, completion_of
from proxy.adapters.stream_converter import StreamConverter, chunks_in, frames_of, to_json
from proxy.errors import InvalidRequest, ProxyError, RouteNotFound, UpstreamAnswer, UpstreamUnavailable

CHAT = "/chat/completions"
EMBEDDINGS = "/embeddings"
JSON_TYPE = "application/json"

# RFC 9112 §3.2: of a request's target; what an adapter takes from a caller must become no line of the head, and no
# query; a fragment would cut off what follows, and dot segments lead out of base_url, however a server spells them.
_PATH = re.compile(r"/(?:(?![?#\\])[!-~])*")
_DOT_SEGMENT = re.compile(r"[/\\]\.\.?(?:[/\\;]|\Z)")
TARGET_MOST_CHARACTERS = 8192
_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e]*")
_FIELDS_OF_OURS = frozenset(
    {"host", "connection", "content-length", "content-type", "transfer-encoding", "te", "expect"}
)
_DATA_LINE = re.compile(rb"^data:(.*)", re.MULTILINE)


class AdaptedCall:
    """Made by the caller's request; then asked for the answer's conversion, whole or streamed, or its error's."""

    def __init__(self, adapter: Adapter, route: str, content: bytes) -> None:
        """Raises RouteNotFound or InvalidRequest for what the upstream does not serve."""
        self._adapter = adapter
        self._is_chat = route == CHAT
        if route not in (CHAT, EMBEDDINGS):
            raise RouteNotFound(NOT_SERVED)
        self._body: dict[str, Any] = jiter.from_json(content, cache_mode="keys")
        self.is_streamed = self._is_chat and bool(self._body.get("stream"))
        with self._blaming(_refuse):
            request = (adapter.chat_request if self._is_chat else adapter.embeddings_request)(self._body)
            self.path = request.path + (f"?{urlencode(request.query)}" if request.query else "")
            _check_head(request, self.path)
            self.content = to_json(request.members)
        self.fields = list(request.fields.items())

    def whole(self, body: bytes, content_type: str = JSON_TYPE) -> tuple[bytes, str]:
        """A good answer that has come whole as OpenAI's, and its content type: a stream where one was asked for.

        Raises UpstreamAnswer where it is an error in disguise, UpstreamUnavailable where the adapter cannot read it.
        """
        with self._blaming(_unreadable):
            if not self._is_chat:
                return to_json(self._embeddings(body)), JSON_TYPE
            completion = self._completion(body, is_stream=is_event_stream(content_type))
            if self.is_streamed:
                if not wants_usage(self._body):
                    completion.pop("usage", None)
                return frames_of(chunks_of(completion)), sse.MEDIA_TYPE
            return to_json(completion), JSON_TYPE

    def converter(self) -> "GuardedConverter":
        """What converts the bytes of a streamed answer."""
        with self._blaming(_unreadable):
            return GuardedConverter(StreamConverter(self._adapter.chat_stream(self._body)), self._blaming)

    def error(self, error: UpstreamAnswer) -> UpstreamAnswer:
        """The upstream's error as OpenAI's, of the same status."""
        converted = UpstreamAnswer(error.status, with_type(error.fields, JSON_TYPE), b"")
        try:
            converted.body = to_json({"error": self._adapter.error(error.status, _error_object(error.body))})
        except Exception as fault:
            # Its status counts all the same: a second upstream may be asked, and callers come back later.
            converted.cause = self._blame(fault)
        return converted

    def _embeddings(self, body: bytes) -> dict[str, Any]:
        """One for each input: with one too few, every text behind it would have its neighbour's."""
        embeddings = self._adapter.embeddings_answer(self._body, _object(body))
        if sorted(item["index"] for item in embeddings["data"]) != list(range(_count(self._body["input"]))):
            raise ValueError("indexes")
        return embeddings

    def _completion(self, body: bytes, *, is_stream: bool) -> dict[str, Any]:
        if is_stream:
            wanted = {**self._body, "stream_options": {"include_usage": True}}
            return completion_of(chunks_in(body, self._adapter.chat_stream(wanted)))
        return self._adapter.chat_answer(self._body, _object(body))

    @contextmanager
    def _blaming(self, blame: Callable[[str], ProxyError]) -> Iterator[None]:
        try:
            yield
        except ProxyError:
            raise
        except ApiError as error:
            raise _as_answer(error) from error
        except Exception as error:
            raise blame(self._blame(error)) from error

    def _blame(self, error: Exception) -> str:
        """`adapter company.llm:Gateway: KeyError at llm.py:41`, the last line in the adapter's own file."""
        kind = type(self._adapter)
        file = getattr(sys.modules.get(kind.__module__), "__file__", None)
        places = [(frame.f_code.co_filename, line) for frame, line in walk_tb(error.__traceback__)]
        name, line = ([place for place in places if place[0] == file] or places)[-1]
        return f"adapter {kind.__module__}:{kind.__qualname__}: {type(error).__name__} at {Path(name).name}:{line}"


class GuardedConverter:
    """A StreamConverter whose faults are told as ours."""

    def __init__(self, converter: StreamConverter, blaming: Callable[[Callable[[str], ProxyError]], Any]) -> None:
        self._converter = converter
        self._blaming = blaming

    @property
    def ended(self) -> bool:
        return self._converter.ended

    @property
    def is_broken(self) -> bool:
        """Whether the next call raises, so that nothing more need be waited for."""
        return self._converter.fault is not None

    def feed(self, data: bytes) -> bytes:
        """The frames that this completes, or b"". Raises UpstreamUnavailable, sse.FrameTooLong."""
        return self._guarded(lambda: self._converter.feed(data))

    def end(self) -> bytes:
        return self._guarded(self._converter.end)

    def _guarded(self, convert: Callable[[], bytes]) -> bytes:
        with self._blaming(_told_unreadable):
            try:
                return convert()
            except sse.FrameTooLong:
                raise _told("an event of the stream is too long") from None
            except ApiError as error:
                raise _told(f"the upstream answered {error.status} in its stream") from error


def is_event_stream(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() == sse.MEDIA_TYPE


def with_type(fields: Iterable[tuple[str, str]], content_type: str) -> list[tuple[str, str]]:
    """The upstream's fields with the content type of what the body has become."""
    return [*(field for field in fields if field[0].lower() != "content-type"), ("Content-Type", content_type)]


def _check_head(request: AdaptedRequest, target: str) -> None:
    if not _PATH.fullmatch(request.path) or _DOT_SEGMENT.search(unquote(request.path)):
        raise ValueError("path")
    if len(target) > TARGET_MOST_CHARACTERS:
        raise ValueError("length")
    for name, value in request.fields.items():
        if not _FIELD_NAME.fullmatch(name) or not _FIELD_VALUE.fullmatch(value) or name.lower() in _FIELDS_OF_OURS:
            raise ValueError("field")


def _refuse(cause: str) -> ProxyError:
    return InvalidRequest("This model's upstream has no way to take this request.", cause=cause)


def _unreadable(cause: str) -> ProxyError:
    return UpstreamUnavailable(cause=cause)


def _told_unreadable(cause: str) -> ProxyError:
    return _told(f"{cause}: an event of the stream cannot be read")


def _told(cause: str) -> ProxyError:
    """Of a stream nobody else tells it: its status is out."""
    logger.warning("{}", cause)
    return UpstreamUnavailable(cause=cause)


def _as_answer(error: ApiError) -> ProxyError:
    if not error.is_the_callers:
        return UpstreamUnavailable(cause=f"the upstream answered {error.status} in its body")
    body = to_json({"error": error_object(error.status, error.message, code=error.code)})
    return UpstreamAnswer(error.status, with_type([], JSON_TYPE), body)


def _count(given: Any) -> int:
    """How many embeddings are due: of a text or an array of tokens one."""
    is_tokens = bool(given) and isinstance(given[0], int)
    return len(given) if isinstance(given, list) and not is_tokens else 1


def _object(body: bytes) -> dict[str, Any]:
    document = jiter.from_json(body, cache_mode="keys")
    if not isinstance(document, dict):
        raise ValueError("no object")
    return document


def _error_object(body: bytes) -> dict[str, Any]:
    """The JSON object of an error's body, which may be one event of a stream; an empty one where it has none."""
    event = _DATA_LINE.search(body)
    for text in (body, event[1] if event else b""):
        try:
            return _object(text)
        except ValueError:
            continue
    return {}
