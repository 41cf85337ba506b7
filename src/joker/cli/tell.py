"""``joker tell``: tell a joke, or many."""

from __future__ import annotations

import getpass
import os
import select
import stat
import sys
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer
from pydantic import TypeAdapter
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from joker.cli.options import with_options, with_settings
from joker.core.errors import InputError, StoreDownError
from joker.core.joke import GeneratedJoke, Sampling
from joker.core.record import fields_of
from joker.engines.protocol import GenerationListener
from joker.generation.moderation import CATEGORIES, parse_categories
from joker.generation.request import EFFORT, GenerationRequest, candidates_of
from joker.settings import Settings, load_settings

if TYPE_CHECKING:
    from joker.store import Store, StoredJoke, Vote

_REQUEST = fields_of(GenerationRequest)
_MAX_PIPED_CHARACTERS = 100_000
"""More than any prompt may have, and not all of an endless pipe."""


_Prompt = Annotated[
    list[str] | None,
    typer.Argument(
        help=f"{_REQUEST['prompt'].description} Words are joined; - reads standard input, as does "
        "a pipe that has something to read.",
        show_default=False,
    ),
]
_Count = Annotated[int, typer.Option("--count", "-n", help=_REQUEST["count"].description)]
_Effort = Annotated[
    int | None, typer.Option(min=1, max=5, help=EFFORT.description, show_default=False)
]
_Categories = Annotated[
    list[str] | None,
    typer.Option(
        help=f"{_REQUEST['exclude_categories'].description} Any of {', '.join(CATEGORIES)}; "
        "comma-separated or repeated.",
        show_default=False,
    ),
]
_Unsafe = Annotated[bool, typer.Option("--unsafe", help="Do not withhold offensive jokes.")]
_AsJson = Annotated[
    bool,
    typer.Option(
        "--json", help="Print the jokes as JSON with all fields and whether readers picked them."
    ),
]
_Fresh = Annotated[
    bool,
    typer.Option("--fresh", help="Invent new jokes instead of telling those that readers picked."),
]
_Rate = Annotated[
    bool,
    typer.Option(
        "--rate",
        help="Ask for a vote on each joke; 'joker feedback export' exports the votes. "
        "Rating alone? Export with --min-votes 1.",
    ),
]


@with_settings(
    *("model", "engine", "engine_url", "engine_api_key", "engine_model", "reproducible"),
    *("max_attempts", "candidates"),
)
@with_options(Sampling, skip=frozenset({"stop"}))
def tell(
    options: dict[str, Any],
    overrides: dict[str, Any],
    prompt: _Prompt = None,
    count: _Count = 1,
    seed: Annotated[int | None, typer.Option(help=_REQUEST["seed"].description)] = None,
    effort: _Effort = None,
    exclude_categories: _Categories = None,
    unsafe: _Unsafe = False,
    as_json: _AsJson = False,
    fresh: _Fresh = False,
    rate: _Rate = False,
) -> None:
    """Tell jokes.

    The jokes that readers picked from the model's drafts come first, each of them once; with a
    topic or the start of a question, only those that fit it. When none is left, or if you enter a
    whole question or set options, the model invents new ones.
    """
    _check_terminal(rate, as_json)
    from joker.compose import open_folder, open_store, read_picked_jokes

    settings = load_settings(**_with_candidates(options, effort))
    categories = ",".join(exclude_categories or ())
    request = GenerationRequest(
        prompt=_read_prompt(prompt or []),
        count=count,
        sampling=Sampling(**overrides),
        max_attempts=settings.max_attempts,
        candidates=settings.candidates,
        safe=not unsafe,
        exclude_categories=(
            parse_categories(map(str.strip, categories.split(","))) if categories else ()
        ),
        **({} if seed is None else {"seed": seed}),
    )
    open_folder(settings)  # a mistake is an error before anything else is tried
    plain = not (fresh or overrides or options or effort) and seed is None
    use_pool = plain and settings.pool_size > 0 and bool(read_picked_jokes(settings))
    store = open_store(settings) if use_pool or rate else None
    ready = _take_from_pool(settings, store, request) if store and use_pool else []
    if as_json:
        _print_json(settings, request, ready)
        return
    printer = _Printer(_Ballot(settings, store, request.prompt) if store and rate else None)
    for joke in ready:
        printer.print(joke.to_generated(), joke.id)
    _invent_missing(settings, request, len(ready), printer)
    if ready or seed is None:
        typer.secho(_describe_origin(request, ready), err=True, dim=True)


def _check_terminal(rate: bool, as_json: bool) -> None:
    if rate and (as_json or not sys.stdin.isatty()):
        raise InputError(
            "--rate needs a terminal; do not combine it with --json or redirected input"
        )


def _with_candidates(options: dict[str, Any], effort: int | None) -> dict[str, Any]:
    if effort is None:
        return options
    if "candidates" in options:
        raise InputError("--effort sets --candidates; give only one of them")
    return options | {"candidates": candidates_of(effort)}


def _read_prompt(words: list[str]) -> str:
    if words == ["-"] or (not words and _is_piped()):
        if sys.stdin is None:
            raise InputError("standard input is closed; give the words as arguments")
        return sys.stdin.read(_MAX_PIPED_CHARACTERS).strip()
    return " ".join(words)


def _is_piped() -> bool:
    """Return whether standard input is a file, or a pipe with something in it or at its end.

    Service managers and CI leave a pipe open that nobody writes to: reading it would never end.
    """
    try:
        file = sys.stdin.fileno()
        mode = os.fstat(file).st_mode
        if not (stat.S_ISFIFO(mode) or stat.S_ISREG(mode)):
            return False
        return bool(select.select([file], [], [], 0)[0])
    except (AttributeError, OSError, ValueError):  # closed, or in place of a file
        return False


def _take_from_pool(
    settings: Settings, store: Store, request: GenerationRequest
) -> list[StoredJoke]:
    """Return jokes of the model's pool that fit the request and that this user has not heard."""
    from joker.compose import add_picked_jokes, model_name

    add_picked_jokes(store, settings)
    return store.pool.take_several(
        _user(),
        request.count,
        model=model_name(settings),
        prompt=request.prompt,
        safe=request.safe,
        exclude_categories=request.exclude_categories,
    )


def _user() -> str:
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container may run as a user id without a name
        name = "nobody"
    return f"terminal of {name}"


def _invent_missing(
    settings: Settings,
    request: GenerationRequest,
    ready: int,
    listener: GenerationListener,
) -> None:
    """Load the model and generate the jokes that the pool lacks, if any."""
    from joker.compose import open_teller

    if ready < request.count:
        missing = replace(request, count=request.count - ready)
        open_teller(settings).tell(missing, listener)


def _describe_origin(request: GenerationRequest, ready: list[StoredJoke]) -> str:
    """Say where the jokes come from, and with which options to repeat or replace them."""
    if not ready:
        return f"invented just now, with --seed {request.seed}"
    who = "picked by readers" if all(joke.picked for joke in ready) else "drafted earlier"
    missing = request.count - len(ready)
    if not missing:
        return f"{who}; --fresh invents new jokes"
    repeat = f"--fresh --count {missing} --seed {request.seed}"
    if not request.safe:
        repeat += " --unsafe"
    if request.exclude_categories:
        repeat += f" --exclude-categories {','.join(request.exclude_categories)}"
    return f"{len(ready)} {who}, {missing} invented just now, with {repeat}"


def _print_json(settings: Settings, request: GenerationRequest, ready: list[StoredJoke]) -> None:
    """Print all jokes at the end; after an error or Ctrl-C, those told so far."""
    collector = _Collector()
    try:
        _invent_missing(settings, request, len(ready), collector)
    finally:
        told = [asdict(joke.to_generated()) | {"picked": joke.picked} for joke in ready]
        invented = [joke for _, joke in sorted(collector.told.items())]
        told += [asdict(joke) | {"picked": False} for joke in invented]
        if told or sys.exc_info()[0] is None:
            typer.echo(TypeAdapter(list[dict[str, Any]]).dump_json(told, indent=2))


class _Collector(GenerationListener):
    """Collects generated jokes by their index."""

    def __init__(self) -> None:
        self.told: dict[int, GeneratedJoke] = {}

    def on_joke(self, index: int, joke: GeneratedJoke) -> None:
        self.told[index] = joke


class _Printer(GenerationListener):
    """Prints each joke as soon as it is told, and asks for a vote on it if there is a ballot."""

    def __init__(self, ballot: _Ballot | None = None) -> None:
        self._ballot = ballot

    def on_joke(self, index: int, joke: GeneratedJoke) -> None:  # noqa: ARG002
        self.print(joke)

    def print(self, joke: GeneratedJoke, joke_id: str | None = None) -> None:
        """Print a joke, on two plain lines if standard output is not a terminal."""
        if sys.stdout.isatty():
            text = Text.assemble(joke.question, "\n", (joke.answer, "bold bright_magenta"))
            Console(highlight=False).print(Padding(text, (1, 2)))
        else:
            typer.echo(f"Q: {_one_line(joke.question)}\nA: {_one_line(joke.answer)}")
        if self._ballot:
            self._ballot.ask(joke, joke_id)


class _Ballot:
    """Asks the user for votes and stores them."""

    VOTES: ClassVar[dict[str, Vote]] = {"u": "up", "d": "down", "r": "report"}

    def __init__(self, settings: Settings, store: Store, prompt: str) -> None:
        self._settings = settings
        self._store = store
        self._prompt = prompt

    def ask(self, joke: GeneratedJoke, joke_id: str | None) -> None:
        """Ask for a vote on a joke, and store both, or raise a `StoreDownError`."""
        answer = ""
        while answer not in (*self.VOTES, "s"):
            question = "[u]p, [d]own, [r]eport or [s]kip?"
            answer = typer.prompt(question, default="s", show_default=False, err=True)
            answer = answer.strip().lower()[:1]
        if answer != "s":
            self._store.vote(joke_id or self._add(joke), _user(), self.VOTES[answer])

    def _add(self, joke: GeneratedJoke) -> str:
        from joker.compose import make_moderator, model_name

        labels = make_moderator(self._settings).label(str(joke))._asdict()
        model = model_name(self._settings)
        stored = self._store.add(joke, model=model, prompt=self._prompt, **labels)
        if stored is None:
            raise StoreDownError(f"the vote was not stored: {self._store} cannot be reached")
        return stored.id


def _one_line(text: str) -> str:
    return " ".join(text.split())
