"""One answer out of the bytes of a connection: geventhttpclient's C parser (llhttp), and no more than we use.

Interim answers (1xx) and trailers (RFC 9110 §6.5.1) are left out. What breaks HTTP raises HTTPParseError; so do bytes
behind the answer's end, since on a shared connection they would become somebody else's answer.
"""

from geventhttpclient._parser import HTTPParseError, HTTPResponseParser

from proxy.headers import Fields

TRAILERS_MOST_CHARS = 64 * 1024


class AnswerParser(HTTPResponseParser):
    """Fed with bytes; the C parser calls the methods that begin with `_on`, texts in as many pieces as reads."""

    __slots__ = (
        *("_body", "_has_no_body", "_name", "_trailer_chars", "_value", "body_bytes", "fields", "head_is_complete"),
        *("is_complete", "status"),
    )

    def __init__(self, method: str) -> None:
        super().__init__()
        self.status = 0  # final, not interim, once the head is here
        self.fields: Fields = []  # in their order, as Latin-1
        self.head_is_complete = False
        self.is_complete = False
        self._has_no_body = method == "HEAD"
        self._name = ""
        self._trailer_chars = 0
        self._value: str | None = None  # None while the name is being read
        self.body_bytes = 0  # that have come and were not taken
        self._body: list[bytearray] = []

    def field_bytes(self) -> int:
        return sum(len(name) + len(value) + 4 for name, value in self.fields)

    def can_be_followed(self) -> bool:
        """Whether the connection is good for another request."""
        return self.head_is_complete and self.is_complete and not self.parser_failed() and self.should_keep_alive()

    def take_body(self) -> bytes:
        """What has come of the body since the last call, in one piece."""
        data = b"".join(self._body)
        self._body.clear()
        self.body_bytes = 0
        return data

    def _on_message_begin(self) -> None:
        if self.is_complete and self.status >= 200:
            raise HTTPParseError("bytes after the end of the answer")
        self.fields = []
        self.head_is_complete = self.is_complete = False

    def _on_status(self, _: str) -> None:
        """The reason phrase goes no further."""

    def _on_header_field(self, text: str) -> None:
        if self.head_is_complete:
            self._pass_trailer(text)
            return
        if self._value is not None:
            self._add_field()
        self._name += text

    def _on_header_value(self, text: str) -> None:
        if self.head_is_complete:
            self._pass_trailer(text)
            return
        self._value = text if self._value is None else self._value + text

    def _on_headers_complete(self) -> bool:
        if self._name:
            self._add_field()
        self.status = self.get_code()
        if not 100 <= self.status <= 599:
            raise HTTPParseError("the answer has no status of HTTP")
        self.head_is_complete = self.status >= 200
        return self._has_no_body

    def _on_body(self, data: bytearray) -> None:
        self._body.append(data)
        self.body_bytes += len(data)

    def _on_message_complete(self) -> None:
        self.is_complete = True

    def _pass_trailer(self, text: str) -> None:
        self._trailer_chars += len(text)
        if self._trailer_chars > TRAILERS_MOST_CHARS:
            raise HTTPParseError("the trailers of the answer are too long")

    def _add_field(self) -> None:
        self.fields.append((self._name, self._value or ""))
        self._name, self._value = "", None
