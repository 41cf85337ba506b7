"""Engines: prompts in, token ids out, many at once.

`open_engine` and `open_shared_engine` are how the other packages get one; the protocol stands in
`joker.engines.protocol`. Importing this package loads neither PyTorch nor OpenVINO.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from joker.core.errors import MissingPartError
from joker.core.model_folder import ModelFolder
from joker.core.tokenizer import JokeTokenizer
from joker.engines.engine import BatchedEngine, InThread, Runner
from joker.engines.process import EngineProcess
from joker.engines.protocol import Completion, Engine, Request, load_tokenizer
from joker.engines.tasks import Batch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = [
    "Completion",
    "Engine",
    "EngineKind",
    "Request",
    "choose_kind",
    "engine_for_model",
    "open_batch",
    "open_engine",
    "open_shared_engine",
]

EngineKind = Literal["openvino", "transformers", "stub"]


def open_engine(folder: ModelFolder, kind: EngineKind | None = None) -> BatchedEngine:
    """Load a model folder into an engine for one thread.

    Args:
        folder: The model.
        kind: What runs it; None takes what `choose_kind` says.

    Raises:
        ModelFolderError: If the folder lacks what the engine needs, or holds it damaged.
        TokenizerError: If its tokenizer cannot be read.
        MissingPartError: If the engine's library is not installed.
    """
    kind = kind or choose_kind(folder)
    return _make_engine(folder, kind, InThread(open_batch(folder, kind)))


def open_shared_engine(folder: ModelFolder, kind: EngineKind | None = None) -> BatchedEngine:
    """Load a model folder into an engine in a process of its own, for any number of threads.

    What threads ask for at the same time advances in one batch. Arguments and errors are those of
    `open_engine`; beside them, calls raise `joker.engines.process.EngineDiedError`.
    """
    kind = kind or choose_kind(folder)
    return _make_engine(folder, kind, EngineProcess(partial(open_batch, folder, kind)))


def engine_for_model(
    model: PreTrainedModel, tokenizer: JokeTokenizer, context_length: int
) -> BatchedEngine:
    """Return an engine for one thread on a PyTorch model that is already loaded.

    Args:
        model: A causal LM; switched to evaluation mode.
        tokenizer: Its tokenizer.
        context_length: Most tokens of a prompt and its continuation.
    """
    from joker.engines.transformers import TransformersBatch

    model.eval()  # type: ignore[no-untyped-call]
    batch = TransformersBatch(model, tokenizer.end_id)
    return BatchedEngine(tokenizer, context_length, InThread(batch))


def open_batch(folder: ModelFolder, kind: EngineKind) -> Batch:
    """Load a model folder into an empty batch; errors are those of `open_engine`."""
    try:
        if kind == "openvino":
            from joker.engines.openvino import OpenVinoBatch

            return OpenVinoBatch(folder)
        if kind == "transformers":
            from joker.engines.transformers import TransformersBatch
            from joker.engines.weights import load_causal_lm

            tokenizer = load_tokenizer(folder, folder.path)
            return TransformersBatch(load_causal_lm(folder), tokenizer.end_id)
    except ModuleNotFoundError as error:
        raise MissingPartError(
            f"the {kind} engine needs {error.name}: pip install 'gpt2-the-joker[train]', "
            f"or use a folder with an OpenVINO graph from 'joker export'"
        ) from error
    from joker.engines.stub import StubBatch

    return StubBatch(load_tokenizer(folder, folder.path))


def _make_engine(folder: ModelFolder, kind: EngineKind, runner: Runner) -> BatchedEngine:
    path = folder.openvino if kind == "openvino" else folder.path
    tokenizer = load_tokenizer(folder, path)
    return BatchedEngine(tokenizer, folder.manifest.context_length, runner)


def choose_kind(folder: ModelFolder) -> EngineKind:
    """Return what runs a folder best: OpenVINO where it has a graph, else PyTorch."""
    return "openvino" if folder.has_openvino else "transformers"
