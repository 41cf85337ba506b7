"""The command line: one module per verb, put together here.

Heavy libraries are imported inside commands, so that ``joker --help`` answers at
once. `main` is the one place where errors become a line and an exit code.
"""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer
from rich.console import Console

from joker.cli import data
from joker.cli.compare import compare
from joker.cli.doctor import doctor
from joker.cli.evaluate import evaluate
from joker.cli.export import export
from joker.cli.serve import serve
from joker.cli.tell import tell
from joker.cli.train import train
from joker.cli.worker import worker
from joker.core.errors import JokerError
from joker.version import __version__

app = typer.Typer(
    name="joker",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
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
    """Learn to invent question-and-answer jokes, and tell them."""


app.add_typer(data.app, name="data")
app.command("train")(train)
app.command("compare")(compare)
app.command("evaluate")(evaluate)
app.command("export")(export)
app.command("tell")(tell)
app.command("worker")(worker)
app.command("serve")(serve)
app.command("doctor")(doctor)


def main() -> None:
    """Run the command line; a person's mistake ends in one line and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a letter gets a question mark, not a traceback.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        app()
    except JokerError as error:
        Console(stderr=True).print(f"joker: {error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)
