"""The kinds of value that several sections share: numbers with their limits, names, secrets, paths.

Each is a pydantic annotation; its check raises Fault. Relative paths count from the folder of the config
file, which `load` hands over as validation context.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    TypeAdapter,
    ValidationInfo,
)
from typing_extensions import TypeAliasType

from config.errors import ConfigError, Fault
from config.secret_ref import SecretRef

_LABEL = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Section(BaseModel):
    """Base of every section: frozen, and an unknown key is a fault, as it is mostly a misspelt one."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, hide_input_in_errors=True)


def _refuse_bool(value: object) -> object:
    # pydantic takes `true` for 1, and YAML takes a bare `yes` or `on` for true.
    if isinstance(value, bool):
        raise Fault("must be a number")
    return value


def _check_not_empty(value: Any) -> Any:
    if not value:
        raise Fault("must not be empty")
    return value


def _check_label(label: str) -> str:
    if not _LABEL.fullmatch(label):
        raise Fault("must be 1 to 64 letters, digits, dots, underscores or hyphens")
    return label


def _existing_file(path: Path, info: ValidationInfo) -> Path:
    absolute = config_folder(info) / path
    expected = "must be the path of an existing file"
    with _looking(expected):
        if not absolute.is_file():
            raise Fault(expected)
    return absolute


def _file_to_come(path: Path, info: ValidationInfo) -> Path:
    absolute = config_folder(info) / path
    expected = "must be the path of a file in an existing folder"
    with _looking(expected):
        # pathlib finds nothing at a path with NUL, and the file could never come.
        if absolute.is_dir() or not absolute.parent.is_dir() or "\0" in str(path):
            raise Fault(expected)
    return absolute


@contextmanager
def _looking(expected: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # pathlib lets some through: a folder that is closed to us, a name that is too long
        raise Fault(f"{expected} ({error.strerror})") from None


def config_folder(info: ValidationInfo) -> Path:
    """The config file's, from which relative paths count."""
    folder: Path = (info.context or {}).get("folder", Path())
    return folder


def _secret(value: object, info: ValidationInfo) -> SecretRef:
    if isinstance(value, SecretRef):
        return value
    if isinstance(value, str):
        return SecretRef(text=value)
    if isinstance(value, dict) and value.keys() == {"file"}:
        return _secret_file(value["file"], config_folder(info))
    raise Fault("must be text (a number in quotes) or {file: path}")


def _secret_file(name: object, folder: Path) -> SecretRef:
    if not isinstance(name, str):
        raise Fault("must be {file: path} with a path as text")
    secret = SecretRef(path=folder / name)
    try:
        secret.reveal()
    except ConfigError:
        # Its text names the path, which is a value of the config file.
        raise Fault("must name a readable file that holds the secret as UTF-8 text") from None
    return secret


def _required_secret(secret: SecretRef) -> SecretRef:
    if not secret.reveal():
        raise Fault("must not be empty")
    return secret


def _secret_json(value: object, info: ValidationInfo) -> Any:
    """JSON with its texts as SecretRef; numbers, booleans and null stay as they are."""
    if isinstance(value, dict) and value.keys() != {"file"}:
        return _JSON_MEMBERS.validate_python(value, context=info.context)
    if isinstance(value, list):
        return _JSON_ITEMS.validate_python(value, context=info.context)
    if value is None or isinstance(value, bool | int | float):
        return value
    return _secret(value, info)


# pydantic walks the containers, so that a fault deep inside has its path.
_JSON_MEMBERS: TypeAdapter[Any] = TypeAdapter(dict[str, Annotated[Any, PlainValidator(_secret_json)]])
_JSON_ITEMS: TypeAdapter[Any] = TypeAdapter(list[Annotated[Any, PlainValidator(_secret_json)]])

Count: TypeAlias = Annotated[int, BeforeValidator(_refuse_bool), Field(gt=0)]
Seconds: TypeAlias = Annotated[float, BeforeValidator(_refuse_bool), Field(gt=0, allow_inf_nan=False)]
# Not by min_length: pydantic counts the valid items only, and would call a list of one bad item empty.
NOT_EMPTY = AfterValidator(_check_not_empty)
Text: TypeAlias = Annotated[str, NOT_EMPTY]
# A name that becomes a metric label, a log field and part of a fault's path.
Label: TypeAlias = Annotated[str, AfterValidator(_check_label)]
ExistingFile: TypeAlias = Annotated[Path, AfterValidator(_existing_file)]
# Something else writes it, and perhaps later than we start.
FileToCome: TypeAlias = Annotated[Path, AfterValidator(_file_to_come)]

Secret: TypeAlias = Annotated[SecretRef, BeforeValidator(_secret)]
RequiredSecret: TypeAlias = Annotated[Secret, AfterValidator(_required_secret)]
JsonWithSecrets = TypeAliasType(
    "JsonWithSecrets",
    Annotated[
        "SecretRef | int | float | bool | Mapping[str, JsonWithSecrets] | Sequence[JsonWithSecrets] | None",
        PlainValidator(_secret_json),
    ],
)
