"""The composition root: builds the engine, the teller, the queue and the store from the settings.

All commands, `joker.Joker` and the MLflow model use it, so all of them generate jokes the same way.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from joker.core.cgroups import cpu_quota
from joker.core.errors import InputError, ModelFolderError, import_optional
from joker.core.fingerprints import Fingerprints
from joker.core.joke import GeneratedJoke
from joker.core.model_folder import ModelFolder, bundled_model
from joker.engines import EngineKind, default_kind, open_engine
from joker.generation.moderation import Moderator
from joker.generation.teller import LiveTeller, Teller
from joker.jobs.queue import JobQueue, Work
from joker.settings import Settings, setting_title

if TYPE_CHECKING:
    from joker.store import Store

_log = logging.getLogger(__name__)


def open_teller(settings: Settings, *, shared: bool = False) -> Teller:
    """Load the model and return its teller.

    Args:
        settings: ``model``, ``moderation_list`` and those of the engine are used.
        shared: Run the model in its own process, for any number of threads; otherwise only one
            thread may use the teller.

    Raises:
        ModelFolderError: If the model folder cannot be used.
        MissingDependencyError: If the engine's library is not installed.
        InputError: If the moderation list cannot be read.
    """
    folder, moderator = open_folder(settings), make_moderator(settings)
    fingerprints = Fingerprints.load(folder.path)
    if _engine_of(settings) == "openvino":
        name, folder = folder.path.name, ensure_graph(folder)
    else:
        name = model_name(settings)
    engine = open_engine(
        folder,
        settings.engine,
        num_threads=settings.num_threads or cpu_quota(),
        reproducible=settings.reproducible,
        server=settings.server,
        shared=shared,
    )
    return Teller(engine, model=name, fingerprints=fingerprints, moderator=moderator)


def open_folder(settings: Settings) -> ModelFolder:
    """Open the model folder, by default the bundled one, following symbolic links.

    Raises:
        ModelFolderError: If it cannot be used.
    """
    if settings.model is None:
        return ModelFolder.open(bundled_model())
    with naming_setting("model"):
        return ModelFolder.open(settings.model.resolve())


def ensure_graph(folder: ModelFolder) -> ModelFolder:
    """Return the folder if it has an OpenVINO graph, otherwise a cached copy with one.

    The copy, without weights, is kept in ``$XDG_CACHE_HOME/gpt2-the-joker`` or
    ``~/.cache/gpt2-the-joker`` and reused until a file of the folder changes. An export takes from
    seconds to a minute.

    Raises:
        ModelFolderError: If the weights cannot be exported or the cache cannot be written.
        MissingDependencyError: If the extra ``train`` is not installed.
    """
    if folder.has_openvino:
        return folder
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gpt2-the-joker"
    cached = cache / _cache_key(folder.path)
    if not cached.is_dir():
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".", dir=cache) as name:
                copy = Path(name) / "model"
                _copy_with_graph(folder, copy)
                with suppress(OSError):  # another process was faster
                    copy.rename(cached)
        except OSError as error:
            raise ModelFolderError(f"cannot write to {cache}: {error.strerror}") from error
    return ModelFolder.open(cached)


def _copy_with_graph(folder: ModelFolder, copy: Path) -> None:
    """Copy a folder, with a graph instead of the weights."""
    import_optional(
        "torch",
        f"{folder.path} has no OpenVINO graph, and exporting one needs",
        otherwise="use a folder with a graph from 'joker export'",
    )
    from joker.training.export import export_openvino

    copy.mkdir()
    for file in _files_of(folder.path):
        if file.suffix == ".safetensors":
            (copy / file.name).symlink_to(file.resolve())
        else:
            shutil.copyfile(file, copy / file.name)
    export_openvino(ModelFolder.open(copy))
    for weights in copy.glob("*.safetensors"):
        weights.unlink()


def _cache_key(path: Path) -> str:
    """Return a digest of the folder's path and its files' sizes and modification times."""
    states = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in _files_of(path)]
    return hashlib.blake2b(repr((path.resolve(), states)).encode(), digest_size=16).hexdigest()


def _files_of(path: Path) -> list[Path]:
    return sorted(file for file in path.iterdir() if file.is_file())


def make_moderator(settings: Settings) -> Moderator:
    """Return the moderator.

    Raises:
        InputError: If the moderation list cannot be read.
    """
    if settings.moderation_list is None:
        return Moderator.default()
    with naming_setting("moderation_list"):
        return Moderator.from_file(settings.moderation_list)


def open_live_teller(settings: Settings) -> LiveTeller:
    """Load the model for any number of threads; the errors are those of `open_teller`."""
    return LiveTeller(lambda: open_teller(settings, shared=True))


def open_queue(settings: Settings, work: Work | None = None) -> JobQueue:
    """Return a queue over Redis if there is a broker, otherwise one in this process.

    Args:
        settings: Those of the queue are used.
        work: Processes the jobs of a queue in this process; by default the model.

    Raises:
        ModelFolderError: If there is no broker and the model folder cannot be used.
    """
    if settings.broker is not None:
        from joker.jobs.celery_redis import CeleryRedisQueue

        return CeleryRedisQueue(
            settings.broker,
            max_queue_size=settings.max_queue_size,
            deadline_seconds=settings.deadline_seconds,
            result_ttl_seconds=settings.result_ttl_seconds,
        )
    from joker.jobs.in_process import InProcessQueue

    return InProcessQueue(
        work or open_teller(settings, shared=True).tell,
        workers=settings.concurrency,
        max_queue_size=settings.max_queue_size,
        deadline_seconds=settings.deadline_seconds,
        result_ttl_seconds=settings.result_ttl_seconds,
    )


def open_store(settings: Settings) -> Store:
    """Return the store of jokes and votes; it connects to the database on first use.

    Logs a warning about a store in memory if there is a broker, since other servers cannot see it.

    Raises:
        ConfigError: If the database URL cannot be used.
        MissingDependencyError: If the PostgreSQL driver is needed and not installed.
    """
    from joker.store import Store

    with naming_setting("database"):
        store = Store(
            settings.database,
            keep_prompts=settings.keep_prompts,
            max_age_days=settings.store_max_age_days,
            max_jokes=settings.store_max_jokes,
        )
    if store.in_memory and settings.broker is not None:
        _log.warning(
            "%s is %s, in this process's memory: servers that share a broker do not share jokes "
            "and votes; use a SQLite file, or PostgreSQL for several machines",
            setting_title("database"),
            store,
        )
    return store


def read_picked_jokes(settings: Settings) -> list[GeneratedJoke]:
    """Return the picked jokes in the model folder.

    There are none for the remote and stub engines, or on a web server without the model folder.
    """
    if _engine_of(settings) != "openvino":
        return []
    try:
        return open_folder(settings).read_picked_jokes()
    except ModelFolderError as error:
        _log.warning("no picked jokes for the pool: %s", error)
        return []


def add_picked_jokes(store: Store, settings: Settings) -> None:
    """Add the model's picked jokes to a store's pool, unless they are there.

    Raises:
        InputError: If the moderation list cannot be read.
    """
    missing = store.pool.missing(read_picked_jokes(settings))
    if missing:
        moderator, model = make_moderator(settings), model_name(settings)
        for joke in missing:
            labels = moderator.label(str(joke))._asdict()
            store.pool.add(joke, model=model, picked=True, **labels)


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """What this process knows about the model that tells the jokes."""

    name: Annotated[str, Field(description="Its name, as stored jokes have it in `model`.")]
    engine: Annotated[EngineKind, Field(description="What runs it.")]
    base_model: Annotated[
        str | None, Field(description="What it was fine-tuned from; null if unknown here.")
    ] = None
    size_bytes: Annotated[
        int | None, Field(description="Size of its weights; null if unknown here.")
    ] = None
    license: Annotated[
        str | None, Field(description="License of its weights; null if unknown here.")
    ] = None


def describe_model(settings: Settings) -> ModelDescription:
    """Return a description of the model."""
    engine = _engine_of(settings)
    description = ModelDescription(model_name(settings), engine)
    if engine != "openvino":
        return description
    try:
        folder = open_folder(settings)
    except ModelFolderError:
        return description  # only the workers have the folder
    return replace(
        description,
        base_model=folder.manifest.base_model,
        size_bytes=folder.weights_bytes,
        license=folder.read_license(),
    )


def model_name(settings: Settings) -> str:
    """Return the name under which the store keeps the model's jokes."""
    engine = _engine_of(settings)
    if engine == "stub":
        return engine
    if engine == "remote":
        return settings.engine_model or settings.engine_url or engine
    return (settings.model or bundled_model()).resolve().name


def _engine_of(settings: Settings) -> EngineKind:
    return settings.engine or default_kind(settings.server)


@contextmanager
def naming_setting(setting: str) -> Iterator[None]:
    """Prefix errors with the setting's command-line option and environment variable."""
    try:
        yield
    except InputError as error:
        raise type(error)(f"{setting_title(setting)}: {error}") from error
