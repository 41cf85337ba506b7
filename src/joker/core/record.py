"""Records: frozen dataclasses checked by pydantic, and the files that contain them.

Each field declares its type, limits and help text once. Files, command-line options, HTTP
parameters, their documentation and error messages are derived from that.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import reprlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, dataclass_transform

import pydantic.dataclasses
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from joker.core.errors import ConfigError, InputError

T = TypeVar("T")

Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""A random seed."""

_CONFIG = ConfigDict(extra="forbid", allow_inf_nan=False)
_PLAIN_WORDS = {
    "a valid boolean": "true or false",
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid string": "text",
    "a valid dictionary": "a mapping",
}


@dataclass_transform(frozen_default=True, field_specifiers=(Field, dataclasses.field))
def record(error: type[InputError], *, strict: bool = True) -> Callable[[type[T]], type[T]]:
    """Make a class a frozen dataclass that raises ``error`` if a value is not allowed.

    A ``ValueError`` of the class's own ``__post_init__`` becomes that error, too. Unless
    ``strict``, values that convert without loss are allowed, such as a list for a tuple.
    """

    def decorate(declared: type[T]) -> type[T]:
        made: Any = pydantic.dataclasses.dataclass(
            declared, frozen=True, slots=True, config=_CONFIG | ConfigDict(strict=strict)
        )
        validate = made.__init__

        @functools.wraps(validate)
        def init(self: T, *args: Any, **values: Any) -> None:
            try:
                validate(self, *args, **values)
            except ValidationError as invalid:
                raise error(_describe(invalid, made)) from None

        made.__init__ = init
        return made  # type: ignore[no-any-return]

    return decorate


def fields_of(kind: Any) -> dict[str, FieldInfo]:
    """Return a record's fields by name."""
    return dict(kind.__pydantic_fields__)


def make_record(kind: type[T], fields: Mapping[str, Any], source: Path) -> T:
    """Build a record from a file's fields; errors name the file."""
    try:
        return kind(**fields)
    except InputError as error:
        raise type(error)(f"{source}: {error}") from None


def read_config_file(path: Path) -> dict[str, Any]:
    """Read a mapping from a ``.yaml``, ``.yml`` or ``.json`` file, or raise a `ConfigError`."""
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        fields = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} is not valid {path.suffix[1:].upper() or 'YAML'}") from error
    if not isinstance(fields, dict):
        raise ConfigError(f"{path} must contain a mapping of names to values")
    return {str(key): value for key, value in fields.items()}


def read_json(kind: type[T], path: Path, error: type[InputError], *, remedy: str) -> T:
    """Read a record from a JSON file, whose ``format_version`` must be the record's default.

    Raises ``error`` if it cannot be read; ``remedy`` says what to do about another version.
    """
    version = fields_of(kind)["format_version"].default
    try:
        text = path.read_text(encoding="utf-8")
        fields = json.loads(text)
        found = fields.get("format_version") if isinstance(fields, dict) else None
        if found != version:
            raise error(
                f"{path} has format version {found!r}, this package reads {version}; {remedy}"
            )
        return TypeAdapter(kind).validate_json(text)
    except ValidationError as invalid:
        raise error(f"{path}: {_describe(invalid, kind)}") from None
    except (OSError, ValueError) as unreadable:
        raise error(f"cannot read {path}: {unreadable}") from unreadable


def write_json(path: Path, value: Any) -> None:
    """Write a record as JSON, replacing the file only once it is complete."""
    partial = path.with_name(f"{path.name}.partial")
    text = json.dumps(dataclasses.asdict(value), indent=2, ensure_ascii=False)
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(path)


def _describe(invalid: ValidationError, kind: Any) -> str:
    """Return one sentence about the first error: the field, what is wrong and what is allowed."""
    first = invalid.errors(include_url=False)[0]
    name, message = ".".join(map(str, first["loc"])), first["msg"]
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])
    if first["type"] in ("missing", "missing_argument"):
        return f"{name!r} is missing"
    if first["type"] == "unexpected_keyword_argument":
        top_level = len(first["loc"]) == 1
        known = f"; known settings: {', '.join(fields_of(kind))}" if top_level else ""
        return f"unknown setting {name!r}{known}"
    return f"{name!r} {plain_message(message)}, not {reprlib.repr(first['input'])}"


def plain_message(message: str) -> str:
    """Return pydantic's message in plain words, such as ``must be a whole number``."""
    message = re.sub(r"^\w+ should ", "must ", message.removeprefix("Value error, "))
    message = re.sub(r", (?:unable|got) .*", "", message)
    for technical, plain in _PLAIN_WORDS.items():
        message = message.replace(technical, plain)
    return message
