"""``joker worker``: tell the jokes that servers put into Redis."""

from __future__ import annotations

from typing import Any

import typer

from joker.cli.options import with_settings


@with_settings("broker", "model", "engine", "concurrency")
def worker(options: dict[str, Any]) -> None:
    """Process the jobs that 'joker serve --broker' puts into Redis, until a signal stops it."""
    from joker.compose import open_work
    from joker.settings import read_settings
    from joker.worker.app import run_worker

    settings = read_settings(**options)
    raise typer.Exit(run_worker(settings, lambda: open_work(settings)))
