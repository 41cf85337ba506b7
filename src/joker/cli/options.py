"""Command-line options made from configuration and settings, so that each is declared once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Annotated, Any, get_type_hints

import typer
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from joker.core.record import fields_of
from joker.settings import Settings


def with_options(kind: Any, skip: frozenset[str] = frozenset()) -> Callable[..., Any]:
    """Give a command one option for each field of a configuration record.

    The command receives the options that were given, and only those, as the mapping
    ``given``; its other parameters stay as they are.

    Args:
        kind: A class made by `joker.core.record.record`.
        skip: Names of fields that get no option.
    """
    return _with_fields(kind, [name for name in fields_of(kind) if name not in skip], "given")


def with_settings(*names: str) -> Callable[..., Any]:
    """Give a command an option for each of these settings; without it the environment decides.

    The command receives the options that were given, and only those, as the mapping
    ``options`` for `joker.settings.read_settings`.

    Args:
        names: Fields of `Settings`.
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
    """Return the type that Typer parses; it does not support secrets."""
    return str if hint == SecretStr | None else hint


def _help(field: FieldInfo) -> str:
    default = "" if field.default is None else f" (default: {field.default})"
    return f"{field.description}{default}"
