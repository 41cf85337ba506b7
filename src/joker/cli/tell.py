"""``joker tell``: tell a joke, or many."""

from __future__ import annotations

import getpass
import os
import select
import stat
import sys
from dataclasses import asdict, replace
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
from joker.generation.moderation import CATEGORIES, parse_categories
from joker.generation.request import EFFORT, GenerationRequest, candidates_of

if TYPE_CHECKING:
    from joker.settings import Settings
    from joker.store import Store, StoredJoke, Vote

_ROWS = TypeAdapter(list[dict[str, Any]])
_REQUEST = fields_of(GenerationRequest)
_MAX_PIPED_CHARACTERS = 100_000
"""More than any prompt may have, and not all of an endless pipe."""
_VOTES: dict[str, Vote] = {"u": "up", "d": "down", "r": "report"}


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
        "--json", help="Print the jokes as JSON, with all fields, and whether readers picked them."
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
    given: dict[str, Any],
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
    topic or the start of a question, only those that fit it. When none is left, or if you give a
    whole question or options, the model invents new ones.
    """
    _check_terminal(rate, as_json)
    from joker.compose import open_folder, open_store, read_picked_jokes
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
        exclude_categories=parse_categories(map(str.strip, named.split(","))) if named else (),
        **({} if seed is None else {"seed": seed}),
    )
    open_folder(settings)  # a mistake is an error before anything else is tried
    plain = not (fresh or given or options or effort) and seed is None
    pooled = plain and settings.pool_size > 0 and bool(read_picked_jokes(settings))
    store = open_store(settings) if pooled or rate else None
    ready = _take_from_pool(settings, store, request) if store and pooled else []
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
    """Return the options with the candidates of an effort."""
    if effort is None:
        return options
    if "candidates" in options:
        raise InputError("--effort sets --candidates; give only one of them")
    return options | {"candidates": candidates_of(effort)}


def _read_prompt(words: list[str]) -> str:
    if words == ["-"] or (not words and _is_piped()):
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
    """Return jokes of the model's pool that fit and that this user has not had."""
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
    """Return the client that the store knows this user as."""
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
    """Have the model tell the jokes of a request that are not ready; load it only then."""
    from joker.compose import open_teller

    if ready < request.count:
        missing = replace(request, count=request.count - ready)
        open_teller(settings).tell(missing, listener)


def _describe_origin(request: GenerationRequest, ready: list[StoredJoke]) -> str:
    """Say which jokes are whose choice, and how to get more like them or the same again."""
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
    """Print all jokes at the end, which may be an error or Ctrl-C; the jokes told so far count."""
    collector = _Collector()
    try:
        _invent_missing(settings, request, len(ready), collector)
    finally:
        told = [asdict(joke.to_generated()) | {"picked": joke.picked} for joke in ready]
        invented = [joke for _, joke in sorted(collector.told.items())]
        told += [asdict(joke) | {"picked": False} for joke in invented]
        if told or sys.exc_info()[0] is None:
            typer.echo(_ROWS.dump_json(told, indent=2))


class _Collector(GenerationListener):
    """Collects jokes by their number."""

    def __init__(self) -> None:
        self.told: dict[int, GeneratedJoke] = {}

    def on_joke(self, index: int, joke: GeneratedJoke) -> None:
        """Note a joke that was generated."""
        self.told[index] = joke


class _Printer(GenerationListener):
    """Prints each joke as soon as it is told.

    Args:
        ballot: Asks for a vote on each joke.
    """

    def __init__(self, ballot: _Ballot | None = None) -> None:
        self._ballot = ballot

    def on_joke(self, index: int, joke: GeneratedJoke) -> None:  # noqa: ARG002
        """Print a joke that was generated."""
        self.print(joke)

    def print(self, joke: GeneratedJoke, joke_id: str | None = None) -> None:
        """Print a joke for a person, or for a pipe with each part on a line of its own.

        Args:
            joke: The joke.
            joke_id: Its id if it is stored.
        """
        if sys.stdout.isatty():
            text = Text.assemble(joke.question, "\n", (joke.answer, "bold bright_magenta"))
            Console(highlight=False).print(Padding(text, (1, 2)))
        else:
            typer.echo(f"Q: {_one_line(joke.question)}\nA: {_one_line(joke.answer)}")
        if self._ballot:
            self._ballot.ask(joke, joke_id)


class _Ballot:
    """Asks the person at the terminal for votes and stores them."""

    def __init__(self, settings: Settings, store: Store, prompt: str) -> None:
        self._settings = settings
        self._store = store
        self._prompt = prompt

    def ask(self, joke: GeneratedJoke, joke_id: str | None) -> None:
        """Ask for a vote on a joke, and store both.

        Raises:
            StoreDownError: If the vote cannot be stored.
        """
        answer = ""
        while answer not in (*_VOTES, "s"):
            question = "[u]p, [d]own, [r]eport or [s]kip?"
            answer = typer.prompt(question, default="s", show_default=False, err=True)
            answer = answer.strip().lower()[:1]
        if answer != "s":
            self._store.vote(joke_id or self._keep(joke), _user(), _VOTES[answer])

    def _keep(self, joke: GeneratedJoke) -> str:
        from joker.compose import make_moderator, model_name

        labels = make_moderator(self._settings).label(str(joke))._asdict()
        model = model_name(self._settings)
        stored = self._store.add(joke, model=model, prompt=self._prompt, **labels)
        if stored is None:
            raise StoreDownError(f"the vote was not stored: {self._store} cannot be reached")
        return stored.id


def _one_line(text: str) -> str:
    return " ".join(text.split())
