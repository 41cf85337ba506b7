"""Command-line options derived from the fields of records and settings."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterable
from typing import Annotated, Any, get_type_hints

import typer
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from joker.core.errors import ConfigError
from joker.core.record import fields_of, plain_message
from joker.settings import OPTIONS, Settings, setting_title


def examples(*commands: str) -> str:
    """Return the epilog of a command's help: a list of examples."""
    title = "Examples:" if len(commands) > 1 else "Example:"
    return "\n\n".join([title, *(f"* {command}" for command in commands)])


def invalid_value(error: typer.BadParameter) -> ConfigError:
    """Return Typer's error about a value in the words of `load_settings`."""
    param = error.param
    names = list(param.opts) if param else []
    if param and param.name in OPTIONS and names[0].startswith("-"):
        names = [setting_title(param.name)]
    message = plain_message(error.message.rstrip("."))
    message = re.sub(r"^(.+) is not one of (.+)$", r"must be one of \2, not \1", message)
    return ConfigError(f"{' / '.join(names)} {message}".lstrip())


def with_options(kind: Any, skip: frozenset[str] = frozenset()) -> Callable[..., Any]:
    """Decorate a command with an option for each field of a record, except those to skip.

    It receives those that are given as the mapping ``overrides``.
    """
    return _with_fields(kind, [name for name in fields_of(kind) if name not in skip], "overrides")


def with_settings(*names: str) -> Callable[..., Any]:
    """Decorate a command with an option for each of these `Settings`.

    It receives those that are given as the mapping ``options``.
    """
    return _with_fields(Settings, names, "options")


def _with_fields(kind: Any, names: Iterable[str], mapping: str) -> Callable[..., Any]:
    hints = get_type_hints(kind)
    declared = fields_of(kind)
    fields = {name: declared[name] for name in names}
    options = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                _typer_type(hints[name]) | None, typer.Option(help=_help(field), show_default=False)
            ],
        )
        for name, field in fields.items()
    ]

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def run(**values: Any) -> Any:
            given = {name: value for name in fields if (value := values.pop(name)) is not None}
            return command(**values, **{mapping: given})

        own = inspect.signature(command, eval_str=True).parameters.values()
        kept = [p.replace(kind=p.KEYWORD_ONLY) for p in own if p.name != mapping]
        parameters = [*kept, *options]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        del run.__wrapped__
        return run

    return decorate


def _typer_type(hint: Any) -> Any:
    """Return the type that Typer parses for a field; it does not know `SecretStr`."""
    return str if hint == SecretStr | None else hint


def _help(field: FieldInfo) -> str:
    default = "" if field.default is None else f" (default: {field.default})"
    return f"{field.description}{default}"
