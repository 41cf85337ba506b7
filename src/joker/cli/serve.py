"""``joker serve``: the page and the API."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from joker.cli.options import setting_option
from joker.engines import EngineKind


def serve(
    host: Annotated[str | None, setting_option("host")] = None,
    port: Annotated[int | None, setting_option("port")] = None,
    broker: Annotated[str | None, setting_option("broker")] = None,
    model: Annotated[Path | None, setting_option("model")] = None,
    engine: Annotated[EngineKind | None, setting_option("engine")] = None,
) -> None:
    """Serve the page and the API.

    Environment variables set everything else, such as JOKER_RATE_LIMIT; docs/settings.md lists
    them, and 'joker doctor' checks them.
    """
    from joker.compose import open_queue, open_store
    from joker.settings import read_settings
    from joker.web.server import Server, bind

    settings = read_settings(host=host, port=port, broker=broker, model=model, engine=engine)
    with bind(settings.host, settings.port) as listener:
        store = open_store(settings)
        Server(open_queue(settings), store, settings, listener, _announce).run_until_stopped()


def _announce(address: str) -> None:
    typer.echo(f"Open {address} (Ctrl-C stops)", err=True)
