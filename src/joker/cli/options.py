"""Command-line options made from configuration and settings, so that each is declared once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, get_type_hints

import typer
from pydantic.fields import FieldInfo

from joker.core.record import fields_of
from joker.settings import Settings


def setting_option(name: str) -> Any:
    """Return the option of a setting; without it the environment decides.

    Args:
        name: One of `joker.settings.OPTIONS`.
    """
    field = Settings.model_fields[name]
    default = "" if field.default is None else f" (default: {field.default})"
    return typer.Option(
        f"--{name.replace('_', '-')}", help=f"{field.description}{default}", show_default=False
    )


def with_options(kind: Any, skip: frozenset[str] = frozenset()) -> Callable[..., Any]:
    """Give a command one option for each field of a configuration record.

    The command receives the options that were given, and only those, as the mapping
    ``given``; its other parameters stay as they are.

    Args:
        kind: A class made by `joker.core.record.record`.
        skip: Names of fields that get no option.
    """
    hints = get_type_hints(kind)
    fields = {n: f for n, f in fields_of(kind).items() if n not in skip}
    options = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                hints[name] | None, typer.Option(help=_help(field), show_default=False)
            ],
        )
        for name, field in fields.items()
    ]

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def run(**values: Any) -> Any:
            given = {name: values.pop(name) for name in fields}
            return command(**values, given={k: v for k, v in given.items() if v is not None})

        own = inspect.signature(command, eval_str=True).parameters.values()
        kept = [p.replace(kind=p.KEYWORD_ONLY) for p in own if p.name != "given"]
        parameters = [*kept, *options]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        del run.__wrapped__
        return run

    return decorate


def _help(field: FieldInfo) -> str:
    default = "" if field.default is None else f" (default: {field.default})"
    return f"{field.description}{default}"
