"""Engines: prompts in, token ids out, many at once.

`open_engine` is how the other rooms get one; the protocol stands in
`joker.engines.base`. Importing this room loads neither PyTorch nor OpenVINO.
"""

from __future__ import annotations

from typing import Literal

from joker.core.errors import MissingPartError
from joker.core.model_folder import ModelFolder
from joker.engines.base import Completion, Engine, Request

__all__ = ["Completion", "Engine", "EngineKind", "Request", "open_engine"]

EngineKind = Literal["openvino", "transformers"]


def open_engine(folder: ModelFolder, kind: EngineKind | None = None) -> Engine:
    """Load a model folder into an engine.

    Args:
        folder: The model.
        kind: Which engine; None takes OpenVINO where the folder has a graph, else PyTorch.

    Raises:
        ModelFolderError: If the folder lacks what the engine needs, or holds it damaged.
        TokenizerError: If its tokenizer cannot be read.
        MissingPartError: If the engine's library is not installed.
    """
    kind = kind or ("openvino" if folder.has_openvino else "transformers")
    try:
        if kind == "openvino":
            from joker.engines.openvino import OpenVinoEngine

            return OpenVinoEngine(folder)
        from joker.engines.transformers import TransformersEngine

        return TransformersEngine(folder)
    except ModuleNotFoundError as error:
        raise MissingPartError(
            f"the {kind} engine needs {error.name}: pip install 'gpt2-the-joker[train]', "
            f"or use a folder with an OpenVINO graph from 'joker export'"
        ) from error
