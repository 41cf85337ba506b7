"""The command line; each module has one command or a few related ones.

Commands import heavy libraries when they run, so that ``joker --help`` is fast.
"""

from __future__ import annotations

import io
import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from joker.cli import data, feedback
from joker.cli.options import examples, invalid_value
from joker.cli.serve import doctor, serve, worker
from joker.cli.tell import tell
from joker.cli.train import compare, evaluate, export, train
from joker.core.errors import JokerError
from joker.version import __version__

_COMMANDS: dict[str, tuple[Any, ...]] = {
    "tell": (tell, 'joker tell "Why do cats" --count 3', "joker tell cats --effort 5"),
    "serve": (serve, "joker serve --port 8080", "joker serve --broker redis://localhost:6379/0"),
    "doctor": (doctor, "joker doctor --port 8080"),
    "data": (data.app,),
    "train": (
        train,
        "joker train --data prepared --out my-joker",
        "joker train --data prepared --out my-joker --resume",
    ),
    "compare": (compare, "joker compare --data prepared --out models --max-steps 2000"),
    "evaluate": (
        evaluate,
        "joker evaluate my-joker --data prepared",
        "joker evaluate my-joker --data jokes.csv --generate 0 --json",
    ),
    "export": (
        export,
        "joker export my-joker",
        "joker export my-joker --int4-ratio 0.5 --calibration data/riddles.csv",
    ),
    "worker": (worker, "joker worker --broker redis://localhost:6379/0"),
    "feedback": (feedback.app,),
}
"""Commands and their examples, in the order of the help."""

_EPILOG = f"""
{examples(*(_COMMANDS[name][1] for name in ("tell", "serve", "doctor")))}

Exit codes:

* 0: success

* 1: a failed check, or any other error

* 2: unusable input or settings

* 3: an optional package is not installed

* 4: out of memory or disk

* 5: no acceptable joke within the attempts

* 6: the queue is full or cannot be reached

* 7: a remote engine or the store cannot be reached

* 130: interrupted

Environment variables such as JOKER_MODEL set defaults; docs/settings.md lists them.
"""


class _CommandGroup(TyperGroup):
    """Lists commands in the order of `_COMMANDS`, and reports invalid values like other errors."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            if not error.message:  # a missing option or argument, which Typer names itself
                raise
            raise invalid_value(error) from None

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=list(_COMMANDS).index)


app = typer.Typer(
    name="joker",
    cls=_CommandGroup,
    epilog=_EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"joker {__version__}")
        raise typer.Exit


@app.callback()
def joker(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Train a model on question-and-answer jokes, and tell the jokes it invents."""


for _name, (_command, *_examples) in _COMMANDS.items():
    if isinstance(_command, typer.Typer):
        app.add_typer(_command, name=_name)
    else:
        app.command(_name, epilog=examples(*_examples))(_command)


def main() -> None:
    """Run the command line; an expected error becomes one line and an exit code."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        # A character that an encoding lacks becomes a question mark, not a traceback.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        app()
    except JokerError as error:
        Console(stderr=True).print(f"joker: {error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)
