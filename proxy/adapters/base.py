"""What an adapter is: it turns OpenAI's requests into another API's, and that one's answers and errors back.

Pure: documents in, documents out. Tokens, connections, retries and the bytes of streams are the proxy's part: `call`
walks one request through an adapter. What an adapter does not have is a route that its upstream does not serve.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from proxy.adapters.chat_stream import ChatStream
from proxy.errors import InvalidRequest, RouteNotFound, ServiceError

Document = dict[str, Any]
NOT_SERVED = "This model's upstream does not serve this route."


@dataclass(frozen=True, slots=True)
class AdaptedRequest:
    """A POST for the upstream: `path` counts from base_url, `members` are its JSON body, `fields` go in its head.

    What a caller chose goes into `path` by `quote(model, safe="")` alone; `query` is encoded by the proxy.
    """

    path: str
    members: Mapping[str, Any]
    fields: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)


class ApiError(Exception):
    """The upstream says no, in an answer of 200 or in the midst of a stream.

    `status` is what it should have been: the caller gets it, and 429 and 503 let a second upstream be asked.
    """

    def __init__(self, status: int, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code

    @property
    def is_the_callers(self) -> bool:
        """Whether the caller is told: a status that means our token, or no error, is nothing to them."""
        return self.status != 401 and 400 <= self.status < 600


class Adapter:
    """One upstream's API. One instance serves all its requests, side by side: it keeps nothing of a request.

    Where the caller asks for what the API has no way to say, it raises InvalidRequest: 400 with its text.
    Whatever a method raises beside that and ApiError is a fault of the adapter or of what it was given: 400 for
    a request, 502 for an answer, with a line in the log that names the adapter, the error's type and where it rose.
    """

    def chat_request(self, body: Document) -> AdaptedRequest:
        """The upstream's request for the body of a chat completion; `body["stream"]` tells whether to stream."""
        raise RouteNotFound(NOT_SERVED)

    def chat_answer(self, body: Document, answer: Document) -> Document:
        """A chat completion of the upstream's whole answer; see `completion`. Of use to streams that come whole too."""
        raise NotImplementedError

    def chat_stream(self, body: Document) -> ChatStream:
        """What makes the chunks of one streamed answer."""
        raise NotImplementedError

    def embeddings_request(self, body: Document) -> AdaptedRequest:
        """The upstream's request for the body of an embeddings request, which was split before if need be."""
        raise RouteNotFound(NOT_SERVED)

    def embeddings_answer(self, body: Document, answer: Document) -> Document:
        """The embeddings, as floats, of the upstream's answer; see `embedding_list`."""
        raise NotImplementedError

    def error(self, status: int, answer: Document) -> Document:
        """OpenAI's error object of the upstream's own; `answer` is empty where the upstream sent no JSON object.

        This one knows the names that most APIs give to a message and its code.
        """
        inner = answer.get("error")
        members: Document = inner if isinstance(inner, dict) else answer
        texts = [members.get(name) for name in ("message", "msg", "detail", "error_msg", "error")]
        if isinstance(members.get("detail"), list):  # FastAPI's, for a body of another shape
            texts = ["; ".join(str(item.get("msg")) for item in members["detail"])]
        message = next((text for text in texts if isinstance(text, str) and text), None)
        code = members.get("code", members.get("error_code"))
        return error_object(status, message, code=None if code is None else str(code))


def error_object(status: int, message: str | None, *, code: str | None = None) -> Document:
    """OpenAI's error object, its `type` by the status."""
    kind = "server_error" if status >= 500 else "rate_limit_error" if status == 429 else "invalid_request_error"
    text = message or (ServiceError.message if status >= 500 else f"The upstream answered with status {status}.")
    return {"message": text, "type": kind, "param": None, "code": code}


def text_of(content: Any) -> str:
    """The text of a message's `content`: a string, text parts, or null. Raises InvalidRequest for other parts."""
    if content is None or isinstance(content, str):
        return content or ""
    if any(part.get("type") != "text" for part in content):
        raise InvalidRequest("This model's upstream takes messages of text alone.", param="messages")
    return "".join(part["text"] for part in content)
