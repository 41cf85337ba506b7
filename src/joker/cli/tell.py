"""``joker tell``: invent a joke, or many."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from joker.core.errors import InputError
from joker.core.fingerprints import Fingerprints
from joker.core.model_folder import ModelFolder, bundled_model
from joker.core.sampling import Sampling
from joker.engines import EngineKind, open_engine
from joker.generation.moderation import CATEGORIES, read_categories
from joker.generation.teller import (
    DEFAULT_CANDIDATES,
    DEFAULT_TRIES,
    Teller,
    ToldJoke,
    UntoldError,
    draw_seed,
)

_DEFAULTS = Sampling()


def tell(
    prompt: Annotated[
        str,
        typer.Argument(
            help="Start of the question, or a whole one ending in '?'; "
            "nothing invents the question too.",
            show_default=False,
        ),
    ] = "",
    count: Annotated[int, typer.Option("--count", "-n", help="How many jokes.")] = 1,
    model: Annotated[
        Path | None,
        typer.Option(help="Model folder; by default the one that comes with the package."),
    ] = None,
    engine: Annotated[
        EngineKind | None,
        typer.Option(help="What runs the model; by default OpenVINO where the folder has a graph."),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Tells the same jokes again; by default one is drawn and shown."),
    ] = None,
    temperature: Annotated[
        float, typer.Option(help="Above 1 wilder, below 1 tamer, 0 always the likeliest.")
    ] = _DEFAULTS.temperature,
    top_k: Annotated[
        int, typer.Option(help="Draw from the k likeliest tokens; 0 from all.")
    ] = _DEFAULTS.top_k,
    top_p: Annotated[
        float, typer.Option(help="Draw from the fewest tokens that reach this probability.")
    ] = _DEFAULTS.top_p,
    max_new_tokens: Annotated[
        int, typer.Option(help="Most tokens behind the prompt.")
    ] = _DEFAULTS.max_new_tokens,
    tries: Annotated[
        int, typer.Option(help="Most tries for each joke that comes out unfinished.")
    ] = DEFAULT_TRIES,
    candidates: Annotated[
        int,
        typer.Option(help="Drafts for each joke; the one that the model rates best is told."),
    ] = DEFAULT_CANDIDATES,
    exclude_categories: Annotated[
        list[str] | None,
        typer.Option(
            help="Also withhold what moderation flags for these categories, even a mere topic: "
            f"{', '.join(CATEGORIES)}; comma-separated or repeated.",
            show_default=False,
        ),
    ] = None,
    unsafe: Annotated[bool, typer.Option("--unsafe", help="Withhold nothing.")] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print a list of objects: question, answer, seed, retold."),
    ] = False,
) -> None:
    """Invent jokes and tell them."""
    sampling = Sampling(
        temperature=temperature, top_k=top_k, top_p=top_p, max_new_tokens=max_new_tokens
    )
    folder = ModelFolder.open(model or bundled_model())
    teller = Teller(
        open_engine(folder, engine),
        fingerprints=Fingerprints.read(folder.path),
    )
    if unsafe and exclude_categories:
        raise InputError(
            "--unsafe withholds nothing, --exclude-categories something; give one of them"
        )
    named = ",".join(exclude_categories or ())
    excluded = read_categories(name.strip() for name in named.split(",")) if named else ()
    show = _show_json if as_json else _show_text
    chosen_seed = draw_seed() if seed is None else seed
    try:
        show(
            teller.tell(
                prompt, count, sampling, chosen_seed, tries, candidates, not unsafe, excluded
            )
        )
    except UntoldError as error:
        show(error.told)
        raise
    if seed is None and not as_json:
        typer.secho(f"told with --seed {chosen_seed}", err=True, dim=True)


def _show_json(jokes: Sequence[ToldJoke]) -> None:
    fields = [
        {
            "question": told.joke.question,
            "answer": told.joke.answer,
            "seed": told.seed,
            "retold": told.near_duplicate if told.recognition else None,
        }
        for told in jokes
    ]
    typer.echo(json.dumps(fields, indent=2, ensure_ascii=False))


def _show_text(jokes: Sequence[ToldJoke]) -> None:
    """Print jokes for a person, or for a pipe with each part on a line of its own."""
    if sys.stdout.isatty():
        console = Console(highlight=False)
        for told in jokes:
            joke = Text.assemble(
                told.joke.question, "\n", (told.joke.answer, "bold bright_magenta")
            )
            console.print(Padding(joke, (1, 2, 0, 2)))
        console.print()
        return
    for told in jokes:
        typer.echo(f"Q: {_one_line(told.joke.question)}\nA: {_one_line(told.joke.answer)}")


def _one_line(text: str) -> str:
    return " ".join(text.split())
