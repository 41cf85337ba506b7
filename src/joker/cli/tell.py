"""``joker tell``: invent a joke, or many."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from pydantic import TypeAdapter
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from joker.cli.options import with_options, with_settings
from joker.core.joke import GeneratedJoke
from joker.core.record import fields_of
from joker.core.sampling import Sampling
from joker.generation.moderation import CATEGORIES, read_categories
from joker.generation.request import GenerationRequest
from joker.generation.teller import UntoldError

_JOKES = TypeAdapter(list[GeneratedJoke])
_REQUEST = fields_of(GenerationRequest)


@with_settings(
    *("model", "engine", "engine_url", "engine_api_key", "engine_model", "reproducible"),
    *("max_attempts", "candidates"),
)
@with_options(Sampling, skip=frozenset({"stop"}))
def tell(
    options: dict[str, Any],
    given: dict[str, Any],
    prompt: Annotated[
        str, typer.Argument(help=_REQUEST["prompt"].description, show_default=False)
    ] = "",
    count: Annotated[int, typer.Option("--count", "-n", help=_REQUEST["count"].description)] = 1,
    seed: Annotated[int | None, typer.Option(help=_REQUEST["seed"].description)] = None,
    exclude_categories: Annotated[
        list[str] | None,
        typer.Option(
            help=f"{_REQUEST['exclude_categories'].description} Any of {', '.join(CATEGORIES)}; "
            "comma-separated or repeated.",
            show_default=False,
        ),
    ] = None,
    unsafe: Annotated[
        bool, typer.Option("--unsafe", help="Do not withhold offensive jokes.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the jokes as JSON, with all fields.")
    ] = False,
) -> None:
    """Invent jokes and tell them."""
    from joker.compose import make_teller, open_engine
    from joker.settings import read_settings

    settings = read_settings(**options)
    named = ",".join(exclude_categories or ())
    request = GenerationRequest(
        prompt=prompt,
        count=count,
        sampling=Sampling(**given),
        max_attempts=settings.max_attempts,
        candidates=settings.candidates,
        safe=not unsafe,
        exclude_categories=read_categories(map(str.strip, named.split(","))) if named else (),
        **({} if seed is None else {"seed": seed}),
    )
    teller = make_teller(settings, open_engine(settings))
    show = _show_json if as_json else _show_text
    try:
        show(teller.tell(request))
    except UntoldError as error:
        show(error.told)
        raise
    if seed is None and not as_json:
        typer.secho(f"told with --seed {request.seed}", err=True, dim=True)


def _show_json(jokes: Sequence[GeneratedJoke]) -> None:
    typer.echo(_JOKES.dump_json(list(jokes), indent=2))


def _show_text(jokes: Sequence[GeneratedJoke]) -> None:
    """Print jokes for a person, or for a pipe with each part on a line of its own."""
    if sys.stdout.isatty():
        console = Console(highlight=False)
        for joke in jokes:
            text = Text.assemble(joke.question, "\n", (joke.answer, "bold bright_magenta"))
            console.print(Padding(text, (1, 2, 0, 2)))
        console.print()
        return
    for joke in jokes:
        typer.echo(f"Q: {_one_line(joke.question)}\nA: {_one_line(joke.answer)}")


def _one_line(text: str) -> str:
    return " ".join(text.split())
