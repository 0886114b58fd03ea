"""Config file and environment → Settings, or one ConfigError with every fault. Called once, at start."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from config.crosscheck import cross_faults
from config.document import expand, parse
from config.errors import ConfigError, Location, describe
from config.schema import Settings
from config.wording import worded

_Found = list[tuple[Location, str]]


def load(path: Path | str | None = None, environ: Mapping[str, str] = os.environ) -> Settings:
    """Settings from the file at path, else at LLM_PROXY_CONFIG, else config.yaml in the working directory.

    Relative paths in the file count from its own folder. Raises ConfigError.
    """
    # absolute(), not resolve(): beside a linked file (a Kubernetes volume) its neighbours are meant.
    file = Path(path or environ.get("LLM_PROXY_CONFIG") or "config.yaml").absolute()
    raw, faults = parse(_read(file))
    try:
        document, unresolved = expand(raw, environ)
    except RecursionError:
        raise ConfigError(["the file: an alias contains itself"]) from None
    # A section whose lines are all commented out is null to YAML: then its defaults count.
    document = {section: value for section, value in document.items() if value is not None}
    settings, invalid = _validate(document, file.parent)
    invalid += cross_faults(document)
    faults += [describe(at, text) for at, text in unresolved.items()]
    faults += [describe(at, text) for at, text in invalid if not _follows(at, unresolved)]
    if settings is None or faults:
        raise ConfigError(faults)
    return settings


def _read(file: Path) -> str:
    try:
        # -sig: editors on Windows put a byte order mark first.
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError([f"{file}: can't be read: {error.strerror or 'read error'}"]) from error
    except ValueError:
        # Not chained: a UnicodeDecodeError carries the bytes of the file.
        raise ConfigError([f"{file}: must be UTF-8 text"]) from None


def _validate(document: dict[str, Any], folder: Path) -> tuple[Settings | None, _Found]:
    try:
        return Settings.model_validate(document, context={"folder": folder}), []
    except ValidationError as error:
        return None, list(worded(error))


def _follows(at: Location, unresolved: Mapping[Location, str]) -> bool:
    """Whether the fault only comes from a text, or a `{file: text}`, whose reference was not replaced."""
    return at in unresolved or (*at, "file") in unresolved
