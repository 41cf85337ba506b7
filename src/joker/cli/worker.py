"""``joker worker``: tell the jokes that servers put into Redis."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def worker(
    broker: Annotated[
        str | None,
        typer.Option(
            help="Redis to take jobs from, as redis://host:port/0; by default JOKER_BROKER.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(help="Model folder; by default the one that comes with the package."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Jobs at once (default: 8).", show_default=False)
    ] = None,
) -> None:
    """Tell the jokes that 'joker serve --broker' puts into Redis, until a signal says stop."""
    from joker.settings import open_work, read_settings
    from joker.worker.app import run_worker

    settings = read_settings(broker=broker, model=model, workers=threads)
    raise typer.Exit(run_worker(settings, lambda: open_work(settings)))
