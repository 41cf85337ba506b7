"""Configuration declared once: a frozen dataclass, from which files and options derive.

A field's help text stands beside its default; `joker.cli.options` makes the command
line's options of it. A value given on the command line wins over the file, the file
over the default.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import yaml

from joker.core.errors import ConfigError

Config = TypeVar("Config")


def option(default: Any, help: str) -> Any:  # noqa: A002  (the field's name on the command line)
    """Declare a field of a configuration dataclass with its default and help text."""
    return dataclasses.field(default=default, metadata={"help": help})


def read_config_file(path: Path) -> dict[str, Any]:
    """Read a mapping from a ``.yaml``, ``.yml`` or ``.json`` file.

    Raises:
        ConfigError: If the file cannot be read or holds no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
        fields = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} is not valid {path.suffix[1:].upper() or 'YAML'}") from error
    if not isinstance(fields, dict):
        raise ConfigError(f"{path} must hold a mapping of settings to values")
    return {str(key): value for key, value in fields.items()}


def make_config(kind: type[Config], *layers: Mapping[str, Any]) -> Config:
    """Build a configuration from layers of values, later ones winning.

    Raises:
        ConfigError: If a key is unknown or a value has the wrong type; the key is named.
    """
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            if key not in hints:
                raise ConfigError(f"unknown setting {key!r}; known are {', '.join(hints)}")
            values[key] = _checked(key, value, hints[key])
    return kind(**values)


def _checked(key: str, value: Any, hint: Any) -> Any:
    """Return a value as the type of its field, or refuse it by the field's name."""
    allowed = get_args(hint) if get_origin(hint) not in (None, Literal) else (hint,)
    for kind in allowed:
        if get_origin(kind) is Literal:
            if value in get_args(kind):
                return value
        elif kind is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        elif isinstance(kind, type) and isinstance(value, kind):
            if kind is int and isinstance(value, bool):
                continue
            return value
    wanted = " or ".join(_spell(kind) for kind in allowed)
    raise ConfigError(f"setting {key!r} must be {wanted}, not {value!r}")


def _spell(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return ", ".join(map(repr, get_args(kind)))
    return "nothing" if kind is type(None) else str(kind.__name__)
