"""Engines: prompts in, token ids out, many at once.

Other packages get one from `open_engine`; the protocol is in `joker.engines.protocol`. Importing
this package loads neither PyTorch nor OpenVINO.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from joker.core.errors import ConfigError
from joker.core.model_folder import ModelFolder
from joker.engines.engine import BatchedEngine, InThreadRunner, Runner
from joker.engines.process import ProcessRunner
from joker.engines.protocol import Completion, Engine, GenerationListener, load_tokenizer
from joker.engines.tasks import Batch, GenerationTask

__all__ = [
    "Completion",
    "Engine",
    "EngineKind",
    "GenerationListener",
    "GenerationTask",
    "RemoteServer",
    "default_kind",
    "open_batch",
    "open_engine",
]

EngineKind = Literal["openvino", "remote", "stub"]
"""What runs a model: OpenVINO on this machine's CPU, a remote server, or a script of jokes."""


@dataclass(frozen=True, slots=True)
class RemoteServer:
    """The server of a remote engine.

    Attributes:
        url: Base URL of its API, such as ``http://localhost:8000/v1``.
        api_key: Sent as a bearer token.
        model: The model's name there; None means the first that the server lists.
    """

    url: str
    api_key: str | None = field(default=None, repr=False)
    model: str | None = None


def open_engine(
    folder: ModelFolder,
    kind: EngineKind | None = None,
    *,
    num_threads: int | None = None,
    reproducible: bool = False,
    server: RemoteServer | None = None,
    shared: bool = False,
) -> BatchedEngine:
    """Load a model folder into an engine.

    Args:
        folder: The model.
        kind: What runs it; by default ``remote`` if there is a server, else ``openvino``.
        num_threads: CPU threads of OpenVINO; None lets it choose.
        reproducible: Make a seed's tokens independent of the rest of the batch, at up to half the
            speed; no effect on a remote server.
        server: The server of the remote engine.
        shared: Run the model in a separate process, where the calls of any number of threads share
            one batch and may raise `joker.engines.process.EngineDiedError`; otherwise the engine is
            not thread-safe. A remote engine always is.

    Raises:
        ModelFolderError: If files that the engine needs are missing or damaged.
        TokenizerError: If the tokenizer cannot be read.
        ConfigError: If the remote engine has no server, or its URL cannot be used.
    """
    kind = kind or default_kind(server)
    runner: Runner
    if kind == "remote":
        runner = _open_remote(folder, server)
    else:
        open_it = partial(open_batch, folder, kind, num_threads, reproducible)
        runner = ProcessRunner(open_it) if shared else InThreadRunner(open_it())
    path = folder.openvino if kind == "openvino" else folder.path
    return BatchedEngine(load_tokenizer(folder, path), folder.manifest.context_length, runner)


def open_batch(
    folder: ModelFolder,
    kind: Literal["openvino", "stub"],
    num_threads: int | None = None,
    reproducible: bool = False,
) -> Batch:
    """Load a model folder into an empty batch; errors are those of `open_engine`."""
    if kind == "openvino":
        from joker.engines.openvino import OpenVinoBatch

        return OpenVinoBatch(folder, num_threads, reproducible=reproducible)
    from joker.engines.stub import StubBatch

    return StubBatch(load_tokenizer(folder, folder.path))


def default_kind(server: RemoteServer | None) -> EngineKind:
    """Return the default engine: remote if there is a server, else OpenVINO."""
    return "remote" if server else "openvino"


def _open_remote(folder: ModelFolder, server: RemoteServer | None) -> Runner:
    if server is None:
        raise ConfigError("the remote engine needs engine_url, such as http://localhost:8000/v1")
    from joker.engines.remote import RemoteRunner

    return RemoteRunner(folder, server)
