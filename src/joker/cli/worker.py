"""``joker worker``: tell the jokes that servers put into Redis."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from joker.cli.options import setting_option
from joker.engines import EngineKind


def worker(
    broker: Annotated[str | None, setting_option("broker")] = None,
    model: Annotated[Path | None, setting_option("model")] = None,
    engine: Annotated[EngineKind | None, setting_option("engine")] = None,
    concurrency: Annotated[int | None, setting_option("concurrency")] = None,
) -> None:
    """Tell the jokes that 'joker serve --broker' puts into Redis, until a signal stops it."""
    from joker.compose import open_work
    from joker.settings import read_settings
    from joker.worker.app import run_worker

    settings = read_settings(broker=broker, model=model, engine=engine, concurrency=concurrency)
    raise typer.Exit(run_worker(settings, lambda: open_work(settings)))
