"""Command-line options made from configuration dataclasses, so that each is declared once."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, get_type_hints

import typer


def with_options(kind: type, skip: frozenset[str] = frozenset()) -> Callable[..., Any]:
    """Give a command one option for each field of a configuration dataclass.

    The command receives the options that were given, and only those, as the mapping
    ``given``; its other parameters stay as they are.

    Args:
        kind: A dataclass whose fields were declared with `joker.core.config.option`.
        skip: Names of fields that get no option.
    """
    hints = get_type_hints(kind)
    fields = [f for f in dataclasses.fields(kind) if f.name not in skip]
    options = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                hints[field.name] | None, typer.Option(help=_help(field), show_default=False)
            ],
        )
        for field in fields
    ]

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def run(**values: Any) -> Any:
            given = {field.name: values.pop(field.name) for field in fields}
            return command(**values, given={k: v for k, v in given.items() if v is not None})

        own = inspect.signature(command, eval_str=True).parameters.values()
        kept = [p.replace(kind=p.KEYWORD_ONLY) for p in own if p.name != "given"]
        parameters = [*kept, *options]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        del run.__wrapped__
        return run

    return decorate


def _help(field: dataclasses.Field[Any]) -> str:
    default = "recipe's" if field.default is None else str(field.default)
    return f"{field.metadata['help']} (default: {default})"
