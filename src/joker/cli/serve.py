"""``joker serve``, ``joker worker``, and ``joker doctor``, which checks what they need."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from importlib import metadata
from typing import TYPE_CHECKING, Any

import typer

from joker.cli.options import with_settings
from joker.core.errors import (
    JokerError,
    QueueDownError,
    StoreDownError,
    missing_training_module,
)
from joker.settings import Settings, load_settings, setting_title
from joker.version import __version__

if TYPE_CHECKING:
    from joker.jobs.queue import Work

_SERVER_OPTIONS = ("host", "port", "broker", "database", "model", "engine")
_MIN_REDIS = 7  # the first with functions


@with_settings(*_SERVER_OPTIONS)
def serve(options: dict[str, Any]) -> None:
    """Serve the page and the API.

    All other settings are environment variables, such as JOKER_RATE_LIMIT; docs/settings.md lists
    them, and 'joker doctor' checks them. SIGUSR2 reloads the model folder without a restart.
    """
    from joker.compose import add_picked_jokes, open_live_teller, open_queue, open_store
    from joker.generation.teller import on_reload_signal
    from joker.web.server import Server, bind

    on_reload_signal(None)
    settings = load_settings(**options)
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
    from joker.worker import run_worker

    on_reload_signal(None)
    settings = load_settings(**options)

    def open_work() -> Work:
        teller = open_live_teller(settings)
        on_reload_signal(teller.reload)
        return teller.tell

    raise typer.Exit(run_worker(settings, open_work))


@with_settings(*_SERVER_OPTIONS)
def doctor(options: dict[str, Any]) -> None:
    """Check everything that 'joker serve' needs; the exit code is 1 if a check fails.

    The model must tell a joke, the broker and the database must be reachable, and the port must be
    free. A broker whose configuration can lose jobs gets a warning.
    """
    _report("versions", _describe_versions)
    _report("training", _describe_training)
    try:
        settings = load_settings(**options)
    except JokerError as error:
        _print("FAIL", "settings", str(error))
        raise typer.Exit(1) from None
    _report("settings", lambda: _describe_settings(settings))
    checks = [
        _report("model", lambda: _check_model(settings)),
        _report("queue", lambda: _check_queue(settings)),
        _report("store", lambda: _check_store(settings)),
        _report("address", lambda: _check_address(settings)),
    ]
    if not all(checks):
        raise typer.Exit(1)


def _report(name: str, check: Callable[[], str]) -> bool:
    """Print the result of a check; return whether it passed."""
    try:
        _print("ok", name, check())
    except JokerError as error:
        _print("FAIL", name, str(error))
        return False
    return True


def _print(verdict: str, name: str, text: str) -> None:
    typer.echo(f"{verdict:4} {name:9} {text}")


def _describe_versions() -> str:
    packages = ("openvino-genai", "fastapi", "celery")
    parts = [f"joker {__version__}", f"Python {platform.python_version()}"]
    return ", ".join([*parts, *(f"{name} {metadata.version(name)}" for name in packages)])


def _describe_training() -> str:
    if missing_training_module() is None:
        return "installed"
    return "not installed, and not needed to serve; pip install 'gpt2-the-joker[train]' adds it"


def _describe_settings(settings: Settings) -> str:
    changed = ", ".join(sorted(settings.model_fields_set))
    return f"set: {changed}" if changed else "all at their defaults"


def _check_model(settings: Settings) -> str:
    """Tell a joke the way the server or worker does."""
    from joker.compose import open_folder, open_teller
    from joker.generation.request import GenerationRequest

    with closing(open_teller(settings, shared=True)) as teller:
        request = GenerationRequest(
            seed=1, max_attempts=settings.max_attempts, candidates=settings.candidates
        )
        (joke,) = teller.tell(request)
    return f"{open_folder(settings).path} tells jokes: {' '.join(str(joke).split())}"


def _check_queue(settings: Settings) -> str:
    if settings.broker is None:
        return "in the server's own process; --broker (JOKER_BROKER) shares it with workers"
    from joker.jobs.broker import SLOT_KEY, translate_redis_errors
    from joker.jobs.connection import TIMEOUTS, connect

    try:
        with (
            closing(connect(settings.broker, decode_responses=True, **TIMEOUTS)) as client,
            translate_redis_errors(settings.broker),
        ):
            client.exists(SLOT_KEY)
            info = client.info()
    except QueueDownError as error:
        raise QueueDownError(f"{setting_title('broker')}: {error}") from error
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = info.get("valkey_version", info["redis_version"])
    if int(str(info["redis_version"]).partition(".")[0]) < _MIN_REDIS:
        raise QueueDownError(
            f"Redis {version} has no functions, which the queue needs; "
            f"upgrade it to version {_MIN_REDIS} or later"
        )
    for weakness in _find_weaknesses(info):
        _print("warn", "queue", f"{name} {weakness}")
    return f"{name} {version} is reachable"


def _find_weaknesses(info: Mapping[str, Any]) -> Iterator[str]:
    """Yield each setting of Redis under which the queue can lose jobs or run out of memory."""
    if not info["maxmemory"]:
        yield (
            "has no memory limit, so it accepts jobs until the machine runs out of memory; "
            "set maxmemory"
        )
    if info["maxmemory_policy"] != "noeviction":
        yield (
            f"drops jobs when its memory is full (maxmemory-policy {info['maxmemory_policy']}); "
            "set maxmemory-policy noeviction"
        )
    if not info["aof_enabled"]:
        yield "has no append-only file, so a restart loses jobs; set appendonly yes"


def _check_store(settings: Settings) -> str:
    """Open the database, and create or migrate its tables as the server would."""
    from joker.compose import open_store

    with closing(open_store(settings)) as store:
        try:
            store.check()
        except StoreDownError as error:
            raise StoreDownError(
                f"{error}; start it, or correct --database (JOKER_DATABASE)"
            ) from error
        return f"{store} stores jokes and votes"


def _check_address(settings: Settings) -> str:
    from joker.web.server import bind

    with bind(settings.host, settings.port):
        return f"{settings.host} port {settings.port} is free"
