"""gunicorn's request parser with a short way for plain heads, which is what clients send.

One expression tells a head in which nothing needs a closer look; its fields are then just taken apart. For any other
head gunicorn's own parser decides, field by field, as it would for all. And what that lets pass although others would
read it in another way is refused.
"""

import re
from typing import Any

from gunicorn.http import errors
from gunicorn.http.message import Request
from gunicorn.http.parser import RequestParser

# RFC 9110 §5.1 and §5.5, without `_` in names, which gunicorn has rules for.
_PLAIN = re.compile(rb"(?:[!#$%&'*+\-.^`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*(?:\r\n(?=.)|\Z))+", re.DOTALL)
# Fields that gunicorn acts upon, besides those of the body, which it looks for later.
_ACTED_UPON = frozenset({"EXPECT", "X-FORWARDED-PROTOCOL", "X-FORWARDED-PROTO", "X-FORWARDED-SSL"})
# RFC 9112 §3.2, RFC 3986 §3.2.2: a name or an address, and a port.
_AUTHORITY = r"(?:[A-Za-z0-9._~%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?"
_HOST = re.compile(_AUTHORITY)
_ABSOLUTE = re.compile(rf"https?://{_AUTHORITY}(?:[/?].*)?", re.IGNORECASE)

Fields = list[tuple[str, str]]


class PlainRequest(Request):  # type: ignore[misc]  # gunicorn has no types
    def parse_headers(self, data: bytes, from_trailer: bool = False) -> Fields:
        """(NAME, value) of each field in a head without its last line ends; raises gunicorn's ParseExceptions."""
        fields = None
        if not from_trailer and _PLAIN.fullmatch(data):
            fields = self._take_apart(data)
        return super().parse_headers(data, from_trailer) if fields is None else fields

    def _take_apart(self, data: bytes) -> Fields | None:
        fields = []
        for line in data.decode("latin-1").split("\r\n"):
            if len(line) + 2 > self.limit_request_field_size:
                return None
            name, _, value = line.partition(":")
            fields.append((name.upper(), value.strip(" \t")))
        names = {name for name, _ in fields}
        is_plain = len(names) == len(fields) <= self.limit_request_fields and names.isdisjoint(_ACTED_UPON)
        return fields if is_plain else None


class PlainParser(RequestParser):  # type: ignore[misc]
    mesg_class = PlainRequest


def check_head(req: Any) -> None:
    """Refuse a request whose head is ambiguous; gunicorn calls it before the app. Raises gunicorn's ParseExceptions."""
    if req.version not in ((1, 0), (1, 1)):
        raise errors.InvalidHTTPVersion(req.version)
    hosts = [value for name, value in req.headers if name == "HOST"]
    if len(hosts) > 1 or (not hosts and req.version == (1, 1)) or not all(map(_HOST.fullmatch, hosts)):
        raise errors.InvalidHeader("HOST")
    codings = [value.strip().lower() for name, value in req.headers if name == "TRANSFER-ENCODING"]
    if codings not in ([], ["chunked"]):
        raise errors.UnsupportedTransferCoding("only chunked")
    # RFC 9112 §3.2: a path, or a whole URI; never with a fragment. gunicorn lets `*` and HOST:PORT pass where they may.
    target = req.uri
    if "#" in target or (target[0] != "/" and "://" in target and not _ABSOLUTE.fullmatch(target)):
        raise errors.InvalidRequestLine("target")
    connection = [value.lower() for name, value in req.headers if name == "CONNECTION"]
    if connection and connection != ["keep-alive"] and _names_close(connection):
        req.force_close()  # gunicorn looks for it alone


def _names_close(values: list[str]) -> bool:
    return any(option.strip(" \t") == "close" for value in values for option in value.split(","))
