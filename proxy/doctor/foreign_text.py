"""What may be shown of texts that others wrote: an issuer, an upstream. Pure.

They may hold anything, our own secrets sent back included. So a text is shown only where it has the form of a name,
and holds none of the secrets that this run knows.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from config import SecretRef, Settings

# Shorter ones stand in ordinary words by chance; no secret that is worth the name is so short.
SECRET_LEAST_CHARS = 6
NAME_MOST_CHARS = 64
_IDENTIFIER = re.compile(r"[a-z0-9_-]{1,40}")
# Long runs of letters with digits among them are ids and keys, and no names that a person gave.
_RANDOM = re.compile(r"(?=[A-Za-z]*\d)[A-Za-z0-9]{20,}")
_MEDIA_TYPES = re.compile(
    r"application/(json|xml|jwt|octet-stream|x-www-form-urlencoded|[a-z-]{1,20}\+(json|xml))"
    r"|text/(html|plain|xml|csv|event-stream)"
)


class ForeignText:
    """Decides what is shown, by the secrets of this run."""

    def __init__(self, settings: Settings) -> None:
        self._secrets = {secret for secret in secrets_of(settings) if len(secret) >= SECRET_LEAST_CHARS}

    def hide(self, secret: str) -> None:
        """One more secret: a token that was fetched."""
        self._secrets.add(secret)

    def identifier(self, value: object) -> str | None:
        """An error's `code` or `type` where it is a short identifier, else None."""
        is_one = isinstance(value, str) and _IDENTIFIER.fullmatch(value) and not _RANDOM.search(value)
        return str(value) if is_one and not self._has_secret(str(value)) else None

    def name(self, value: str) -> str | None:
        """A member's or a model's name where it looks like one, else None."""
        is_odd = len(value) > NAME_MOST_CHARS or not value.isprintable() or _RANDOM.search(value)
        return None if is_odd or self._has_secret(value) else value

    def _has_secret(self, text: str) -> bool:
        return any(secret in text for secret in self._secrets)


def media_type(content_type: str | None) -> str:
    """A known media type without its parameters; words for all others."""
    if not content_type:
        return "no content type"
    kind = content_type.partition(";")[0].strip().lower()
    return kind if _MEDIA_TYPES.fullmatch(kind) else "an unusual content type"


def secrets_of(value: Any) -> Iterator[str]:
    """Every secret in a section, or in whatever of sections, mappings and lists, as of now."""
    if isinstance(value, SecretRef):
        yield value.reveal()
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from secrets_of(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from secrets_of(item)
    elif hasattr(type(value), "model_fields"):
        for name in type(value).model_fields:
            yield from secrets_of(getattr(value, name))
