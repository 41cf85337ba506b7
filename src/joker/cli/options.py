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
    """Return the end of a command's help: a list of examples."""
    title = "Examples:" if len(commands) > 1 else "Example:"
    return "\n\n".join([title, *(f"* {command}" for command in commands)])


def invalid_value(error: typer.BadParameter) -> ConfigError:
    """Return Typer's error about a value as one sentence; it names a setting's variable, too.

    `read_settings` words its errors about variables in the same way.
    """
    param = error.param
    names = list(param.opts) if param else []
    if param and param.name in OPTIONS and names[0].startswith("-"):
        names = [setting_title(param.name)]
    message = plain_message(error.message.rstrip("."))
    message = re.sub(r"^(.+) is not one of (.+)$", r"must be one of \2, not \1", message)
    return ConfigError(f"{' / '.join(names)} {message}".lstrip())


def with_options(kind: Any, skip: frozenset[str] = frozenset()) -> Callable[..., Any]:
    """Give a command an option for each field of a record, except those to skip.

    The command receives the options that were given, and only those, as the mapping ``given``.
    """
    return _with_fields(kind, [name for name in fields_of(kind) if name not in skip], "given")


def with_settings(*names: str) -> Callable[..., Any]:
    """Give a command an option for each of these `Settings`; without it the environment decides.

    The command receives the options that were given, and only those, as the mapping ``options``.
    """
    return _with_fields(Settings, names, "options")


def _with_fields(kind: Any, names: Iterable[str], mapping: str) -> Callable[..., Any]:
    """Give a command an option for each of a class's fields, passed to it as one mapping."""
    hints = get_type_hints(kind)
    declared = fields_of(kind)
    fields = {name: declared[name] for name in names}
    options = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                _readable(hints[name]) | None, typer.Option(help=_help(field), show_default=False)
            ],
        )
        for name, field in fields.items()
    ]

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def run(**values: Any) -> Any:
            chosen = {name: values.pop(name) for name in fields}
            given = {name: value for name, value in chosen.items() if value is not None}
            return command(**values, **{mapping: given})

        own = inspect.signature(command, eval_str=True).parameters.values()
        kept = [p.replace(kind=p.KEYWORD_ONLY) for p in own if p.name != mapping]
        parameters = [*kept, *options]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        del run.__wrapped__
        return run

    return decorate


def _readable(hint: Any) -> Any:
    """Return a type that Typer can parse, which a secret is not."""
    return str if hint == SecretStr | None else hint


def _help(field: FieldInfo) -> str:
    default = "" if field.default is None else f" (default: {field.default})"
    return f"{field.description}{default}"
