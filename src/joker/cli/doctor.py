"""``joker doctor``: what is installed, configured and reachable, and how to mend what is not."""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Callable
from importlib import metadata
from typing import TYPE_CHECKING

import typer

from joker.core.errors import JokerError, QueueDownError
from joker.version import __version__

if TYPE_CHECKING:
    from joker.settings import Settings


def doctor() -> None:
    """Examine this installation; the exit code is 1 where something is wrong."""
    _report("versions", _describe_versions)
    _report("training", _describe_training)
    found: list[Settings] = []
    if not _report("settings", lambda: _read_settings(found)):
        raise typer.Exit(1)
    settings = found[0]
    well = [
        _report("model", lambda: _examine_model(settings)),
        _report("queue", lambda: _examine_queue(settings)),
        _report("address", lambda: _examine_address(settings)),
    ]
    if not all(well):
        raise typer.Exit(1)


def _report(name: str, examine: Callable[[], str]) -> bool:
    """Print what an examination found; return whether all is well."""
    try:
        typer.echo(f"ok    {name:9} {examine()}")
    except JokerError as error:
        typer.echo(f"FAIL {name:9} {error}")
        return False
    return True


def _describe_versions() -> str:
    packages = ("openvino-genai", "fastapi", "celery")
    parts = [f"joker {__version__}", f"Python {platform.python_version()}"]
    return ", ".join([*parts, *(f"{name} {metadata.version(name)}" for name in packages)])


def _describe_training() -> str:
    if all(importlib.util.find_spec(name) for name in ("torch", "transformers", "mlflow")):
        return "installed"
    return "not installed, and not needed to serve; pip install 'gpt2-the-joker[train]' adds it"


def _read_settings(found: list[Settings]) -> str:
    from joker.settings import read_settings

    settings = read_settings()
    found.append(settings)
    changed = ", ".join(sorted(settings.model_fields_set))
    return f"from the environment: {changed}" if changed else "all as they come"


def _examine_model(settings: Settings) -> str:
    from joker.core.model_folder import ModelFolder, bundled_model
    from joker.engines import open_engine
    from joker.generation.teller import Teller

    folder = ModelFolder.open(settings.model or bundled_model())
    joke = Teller(open_engine(folder)).tell(seed=1)[0].joke
    return f"{folder.path} tells jokes: {' '.join(f'{joke.question} {joke.answer}'.split())}"


def _examine_queue(settings: Settings) -> str:
    if settings.broker is None:
        return "in the server's own process; JOKER_BROKER=redis://host:6379/0 parts the work"
    import redis

    client = redis.Redis.from_url(
        settings.broker, socket_connect_timeout=3, socket_timeout=3, decode_responses=True
    )
    try:
        version = client.info("server")["redis_version"]
    except redis.RedisError as error:
        raise QueueDownError(
            f"Redis cannot be reached: {error}; start it, or correct JOKER_BROKER"
        ) from error
    finally:
        client.close()
    return f"Redis {version} answers"


def _examine_address(settings: Settings) -> str:
    from joker.web.server import bind

    with bind(settings.host, settings.port):
        return f"{settings.host} port {settings.port} is free"
