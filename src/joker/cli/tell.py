"""``joker tell``: invent a joke, or many."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import TypeAdapter
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from joker.cli.options import with_options, with_settings
from joker.core.errors import InputError, StoreDownError
from joker.core.joke import GeneratedJoke
from joker.core.record import fields_of
from joker.core.sampling import Sampling
from joker.engines.protocol import GenerationListener
from joker.generation.moderation import CATEGORIES, read_categories
from joker.generation.request import EFFORT, GenerationRequest, candidates_of
from joker.generation.teller import Teller, UntoldError

if TYPE_CHECKING:
    from joker.settings import Settings
    from joker.store import Store, Vote

_JOKES = TypeAdapter(list[GeneratedJoke])
_REQUEST = fields_of(GenerationRequest)
_VOTES: dict[str, Vote] = {"u": "up", "d": "down", "r": "report"}


@with_settings(
    *("model", "engine", "engine_url", "engine_api_key", "engine_model", "reproducible"),
    *("max_attempts", "candidates"),
)
@with_options(Sampling, skip=frozenset({"stop"}))
def tell(
    options: dict[str, Any],
    given: dict[str, Any],
    prompt: Annotated[
        list[str] | None,
        typer.Argument(
            help=f"{_REQUEST['prompt'].description} Words are joined; - reads standard input.",
            show_default=False,
        ),
    ] = None,
    count: Annotated[int, typer.Option("--count", "-n", help=_REQUEST["count"].description)] = 1,
    seed: Annotated[int | None, typer.Option(help=_REQUEST["seed"].description)] = None,
    effort: Annotated[
        int | None, typer.Option(min=1, max=5, help=EFFORT.description, show_default=False)
    ] = None,
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
    rate: Annotated[
        bool,
        typer.Option(
            "--rate", help="Ask for a vote on each joke; 'joker feedback export' has the votes."
        ),
    ] = False,
) -> None:
    """Invent jokes and tell them."""
    _check_terminal(rate, as_json)
    from joker.compose import make_teller, open_engine
    from joker.settings import read_settings

    settings = read_settings(**_with_candidates(options, effort))
    named = ",".join(exclude_categories or ())
    request = GenerationRequest(
        prompt=_read_prompt(prompt or []),
        count=count,
        sampling=Sampling(**given),
        max_attempts=settings.max_attempts,
        candidates=settings.candidates,
        safe=not unsafe,
        exclude_categories=read_categories(map(str.strip, named.split(","))) if named else (),
        **({} if seed is None else {"seed": seed}),
    )
    teller = make_teller(settings, open_engine(settings))
    if as_json:
        _print_json(teller, request)
        return
    teller.tell(request, _Prints(_ask_for_vote(settings, request.prompt) if rate else None))
    if seed is None:
        typer.secho(f"told with --seed {request.seed}", err=True, dim=True)


def _check_terminal(rate: bool, as_json: bool) -> None:
    if rate and (as_json or not sys.stdin.isatty()):
        raise InputError(
            "--rate needs a terminal; do not combine it with --json or redirected input"
        )


def _with_candidates(options: dict[str, Any], effort: int | None) -> dict[str, Any]:
    """Return the options with the candidates of an effort."""
    if effort is None:
        return options
    if "candidates" in options:
        raise InputError("--effort sets --candidates; give only one of them")
    return options | {"candidates": candidates_of(effort)}


def _read_prompt(words: list[str]) -> str:
    return sys.stdin.read().strip() if words == ["-"] else " ".join(words)


class _Prints(GenerationListener):
    """Prints each joke as soon as it is told.

    Args:
        then: Called with each joke that was printed.
    """

    def __init__(self, then: Callable[[GeneratedJoke], None] | None = None) -> None:
        self._then = then

    def on_joke(self, index: int, joke: GeneratedJoke) -> None:  # noqa: ARG002
        """Print a joke for a person, or for a pipe with each part on a line of its own."""
        if sys.stdout.isatty():
            text = Text.assemble(joke.question, "\n", (joke.answer, "bold bright_magenta"))
            Console(highlight=False).print(Padding(text, (1, 2)))
        else:
            typer.echo(f"Q: {_one_line(joke.question)}\nA: {_one_line(joke.answer)}")
        if self._then:
            self._then(joke)


def _ask_for_vote(settings: Settings, prompt: str) -> Callable[[GeneratedJoke], None]:
    """Return a function that asks the person at the terminal for a vote and stores it.

    Raises:
        StoreDownError: When called, if the vote cannot be stored.
    """
    from joker.compose import make_moderator, model_name, open_store

    store: Store = open_store(settings)
    moderator = make_moderator(settings)

    def ask(joke: GeneratedJoke) -> None:
        answer = ""
        while answer not in (*_VOTES, "s"):
            question = "[u]p, [d]own, [r]eport or [s]kip?"
            answer = typer.prompt(question, default="s", show_default=False, err=True)
            answer = answer.strip().lower()[:1]
        if answer == "s":
            return
        labels = moderator.label(str(joke))._asdict()
        stored = store.add(joke, model=model_name(settings), prompt=prompt, **labels)
        if stored is None:
            raise StoreDownError(f"the vote was not stored: {store} cannot be reached")
        store.vote(stored.id, f"terminal of {getpass.getuser()}", _VOTES[answer])

    return ask


def _print_json(teller: Teller, request: GenerationRequest) -> None:
    try:
        jokes = teller.tell(request)
    except UntoldError as error:
        typer.echo(_JOKES.dump_json(error.told, indent=2))
        raise
    typer.echo(_JOKES.dump_json(jokes, indent=2))


def _one_line(text: str) -> str:
    return " ".join(text.split())
