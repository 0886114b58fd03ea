"""Header fields of the operator's own, for upstreams and token endpoints: their names and values, as RFC 9110 has them.

Callers: the sections in upstreams.py and sources.py, which name these types.
"""

import re
from collections.abc import Mapping
from typing import Annotated, TypeAlias

from pydantic import AfterValidator

from config.errors import Fault
from config.secret_ref import SecretRef
from config.values import Secret

# RFC 9110 §5.1 and §5.6.2: a field name is a token.
_FIELD_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
# RFC 9110 §5.5: CR, LF and NUL in a value are dangerous, other control characters invalid, what is not ASCII obsolete.
_NO_VALUE = re.compile(r"[^\t\x20-\x7e]")
_BLANKS = " \t"
# Set by the HTTP client from the request itself: a fixed value would break the framing or go to another host.
_RESERVED_FIELDS = frozenset({"host", "content-length", "transfer-encoding", "connection"})


def _check_name(name: str) -> str:
    if not _FIELD_NAME.fullmatch(name):
        raise Fault("must be a field name of RFC 9110, such as X-App-Id")
    if name.lower() in _RESERVED_FIELDS:
        raise Fault("must not be host, content-length, transfer-encoding or connection")
    return name


def _check_value(secret: SecretRef) -> SecretRef:
    value = secret.reveal()
    if _NO_VALUE.search(value):
        raise Fault("must hold ASCII characters only, and no line break or other control character")
    # RFC 9110 §5.5: they are no part of a value, and httpx sends no such field.
    if value.strip(_BLANKS) != value:
        raise Fault("must have no blank or tab at its ends")
    return secret


def _check_differ(fields: Mapping[str, SecretRef]) -> Mapping[str, SecretRef]:
    if len({name.lower() for name in fields}) < len(fields):
        raise Fault("must not name a field twice (case does not count)")
    return fields


FieldName: TypeAlias = Annotated[str, AfterValidator(_check_name)]
FieldValue: TypeAlias = Annotated[Secret, AfterValidator(_check_value)]
FIELDS_DIFFER = AfterValidator(_check_differ)
