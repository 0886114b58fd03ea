"""gunicorn's request parser with a short way for plain heads, which is what clients send.

One expression tells a head in which nothing needs a closer look; its fields are then just taken apart. For any other
head gunicorn's own parser decides, field by field, as it would for all.
"""

import re

from gunicorn.http.message import Request
from gunicorn.http.parser import RequestParser

# RFC 9110 §5.1 and §5.5, without `_` in names, which gunicorn has rules for.
_PLAIN = re.compile(rb"(?:[!#$%&'*+\-.^`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*(?:\r\n(?=.)|\Z))+", re.DOTALL)
# Fields that gunicorn acts upon, besides those of the body, which it looks for later.
_ACTED_UPON = frozenset({"EXPECT", "X-FORWARDED-PROTOCOL", "X-FORWARDED-PROTO", "X-FORWARDED-SSL"})

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
