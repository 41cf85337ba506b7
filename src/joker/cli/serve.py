"""``joker serve``: the page and the API; ``joker worker``: runs its jobs in another process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from joker.cli.options import with_settings

if TYPE_CHECKING:
    from joker.jobs.queue import Work

SERVER_OPTIONS = ("host", "port", "broker", "database", "model", "engine")


@with_settings(*SERVER_OPTIONS)
def serve(options: dict[str, Any]) -> None:
    """Serve the page and the API.

    All other settings are environment variables, such as JOKER_RATE_LIMIT; docs/settings.md lists
    them, and 'joker doctor' checks them. SIGUSR2 reloads the model folder without a restart.
    """
    from joker.compose import add_picked_jokes, open_live_teller, open_queue, open_store
    from joker.generation.teller import on_reload_signal
    from joker.settings import read_settings
    from joker.web.server import Server, bind

    on_reload_signal(None)
    settings = read_settings(**options)
    with bind(settings.host, settings.port) as listener:
        store = open_store(settings)
        teller = open_live_teller(settings) if settings.broker is None else None

        def reload() -> None:
            if teller:
                teller.reload()
            add_picked_jokes(store, settings)

        on_reload_signal(reload)
        queue = open_queue(settings, teller.tell if teller else None)
        Server(queue, store, settings, listener, _announce).run_until_stopped()


def _announce(address: str) -> None:
    typer.echo(f"Open {address} (Ctrl-C stops)", err=True)


@with_settings("broker", "model", "engine", "concurrency")
def worker(options: dict[str, Any]) -> None:
    """Process the jobs that 'joker serve --broker' puts into Redis, until a signal stops it.

    SIGUSR2 reloads the model folder without a restart.
    """
    from joker.compose import open_live_teller
    from joker.generation.teller import on_reload_signal
    from joker.settings import read_settings
    from joker.worker.app import run_worker

    on_reload_signal(None)
    settings = read_settings(**options)

    def open_work() -> Work:
        teller = open_live_teller(settings)
        on_reload_signal(teller.reload)
        return teller.tell

    raise typer.Exit(run_worker(settings, open_work))
