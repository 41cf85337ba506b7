"""``joker serve``: the page and the API."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def serve(
    host: Annotated[
        str | None,
        typer.Option(help="Address to listen on; 0.0.0.0 is every one. (default: 127.0.0.1)"),
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on; 0 takes a free one. (default: 8000)")
    ] = None,
    broker: Annotated[
        str | None,
        typer.Option(
            help="Redis that parts work among 'joker worker' processes, as redis://host:6379/0; "
            "by default jokes are told in this process."
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(help="Model folder; by default the one that comes with the package."),
    ] = None,
) -> None:
    """Serve the page and the API.

    Everything else is set in the environment, such as JOKER_RATE_LIMIT; 'joker doctor' shows it.
    """
    from joker.settings import open_queue, read_settings
    from joker.web.server import Server, bind

    settings = read_settings(host=host, port=port, broker=broker, model=model)
    with bind(settings.host, settings.port) as listener:
        Server(open_queue(settings), settings, listener, _announce).run_until_stopped()


def _announce(address: str) -> None:
    typer.echo(f"Open {address} (Ctrl-C stops)", err=True)
