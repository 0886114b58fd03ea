"""pydantic's errors → location and text in our words, which never repeat the value (pydantic's own may)."""

from collections.abc import Iterator

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from config.errors import Fault, Location
from config.sources import SOURCE_TYPES

# By pydantic's error type or its start; the first that fits counts.
_TEXTS = (
    ("missing", "is required"),
    ("extra_forbidden", "is not a known key"),
    ("finite_number", "must be a finite number"),
    ("greater_than", "must be above 0"),
    ("string_", "must be text (a number, date, yes or no in quotes)"),
    ("int_", "must be a whole number"),
    ("float_", "must be a number"),
    ("bool_", "must be true or false"),
    ("path_type", "must be the path of a file, as text"),
    ("tuple_type", "must be a list"),
    ("list_type", "must be a list"),
    ("frozen_set_type", "must be a list"),
    ("dict_type", "must be a mapping"),
    ("mapping_type", "must be a mapping"),
    ("model_", "must be a mapping"),
)


def worded(error: ValidationError) -> Iterator[tuple[Location, str]]:
    """Location in the file and text of each error."""
    for details in error.errors(include_url=False, include_input=False):
        # Only a consequence: the default of expires_in_pointer waits for the other fields.
        if details["type"] != "default_factory_not_called":
            yield _location(details), _text(details)


def _location(details: ErrorDetails) -> Location:
    location = tuple(part for part in details["loc"] if part != "[key]")
    # pydantic puts the union's tag after the source's name: (token_sources, corp, http_json, url).
    if location[:1] == ("token_sources",) and location[2:3] and location[2] in SOURCE_TYPES:
        location = location[:2] + location[3:]
    return (*location, "type") if details["type"].startswith("union_tag") else location


def _text(details: ErrorDetails) -> str:
    context = details.get("ctx", {})
    if isinstance(context.get("error"), Fault):
        return str(context["error"])
    if details["type"].startswith("union_tag"):
        return "must be one of " + ", ".join(SOURCE_TYPES)
    if details["type"] == "literal_error":
        return f"must be {context['expected']}"
    return next((text for start, text in _TEXTS if details["type"].startswith(start)), "is not valid")
