"""A model folder's PyTorch weights: loading them, and the log-probabilities of tokens under them.

For evaluation, training and export. PyTorch and Transformers are imported when a model is asked
for, and their errors become ours here. Turning weights into an OpenVINO graph is training's work.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from joker.core.errors import (
    InputError,
    ModelFolderError,
    ResourceError,
    first_line,
    import_optional,
)
from joker.core.model_folder import ModelFolder

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

MAX_BATCH_LOGITS = 2**24
"""Maximum number of logits in memory, 64 MiB in 32-bit floats; their softmax takes as much again.
"""

_NO_MEMORY = re.compile(
    r"out of memory|OutOfMemoryError|Cannot allocate memory|can't allocate memory|bad_alloc"
)


def load_causal_lm(folder: ModelFolder, device: str | None = None) -> PreTrainedModel:
    """Load a folder's causal LM in 32-bit floats, ready for inference.

    Args:
        folder: A checked model folder; nothing is downloaded.
        device: Where to put the model, such as ``cpu`` or ``cuda``; by default a GPU if there is
            one.

    Raises:
        ModelFolderError: If the folder has no weights, or they cannot be loaded.
        MissingDependencyError: If PyTorch or Transformers is not installed.
        ResourceError: If the model does not fit into memory.
        InputError: If there is no such device.
    """
    if not folder.has_weights:
        raise ModelFolderError(
            f"{folder.path} has no model.safetensors, only a graph for serving; "
            "name a folder with PyTorch weights"
        )
    # Nothing is downloaded or unpickled for a folder of ours.
    model = load_pretrained(str(folder.path), local_files_only=True, use_safetensors=True)
    import torch

    with out_of_memory_as_resource_error(f"loading {folder.path}"):
        return _to_device(model, device or ("cuda" if torch.cuda.is_available() else "cpu"))


def load_pretrained(source: str, **options: Any) -> PreTrainedModel:
    """Load a causal LM in 32-bit floats, on the CPU.

    Args:
        source: A folder, a GGUF file, or a name on the hub.
        **options: Further options of Transformers' ``from_pretrained``.

    Raises:
        ModelFolderError: If there is no such model, or it cannot be loaded.
        MissingDependencyError: If PyTorch or Transformers is not installed.
        ResourceError: If the model does not fit into memory.
    """
    torch = import_optional("torch", "reading PyTorch weights needs")
    loader = import_optional("transformers", "reading PyTorch weights needs").AutoModelForCausalLM
    name = source
    if is_gguf(source):
        name, options = str(Path(source).parent), {**options, "gguf_file": Path(source).name}
    with out_of_memory_as_resource_error(f"loading {source}"):
        try:
            with silent_transformers():
                model, report = loader.from_pretrained(
                    name, dtype=torch.float32, output_loading_info=True, **options
                )
        except Exception as error:  # safetensors raises plain Exception, Transformers many kinds
            if _is_out_of_memory(error):
                raise
            raise ModelFolderError(
                f"cannot load the model {source}: {first_line(error)}"
            ) from error
    if missing := sorted(report["missing_keys"]):
        raise ModelFolderError(
            f"the weights of {source} lack {missing[0]}; train or copy the model again"
        )
    return cast("PreTrainedModel", model)


def is_gguf(source: str) -> bool:
    """Return whether a model's name is the path of a GGUF file, which may not exist."""
    path = Path(source)
    return path.suffix.lower() == ".gguf" and not path.is_dir()


@contextmanager
def out_of_memory_as_resource_error(
    doing: str, advice: str = "use a smaller model or batch, or free memory"
) -> Iterator[None]:
    """Turn a library's out-of-memory errors into `ResourceError`.

    Args:
        doing: Completes the message "out of memory while …".
        advice: What to do about it.
    """
    try:
        yield
    except Exception as error:
        if not _is_out_of_memory(error):
            raise
        raise ResourceError(f"out of memory while {doing}; {advice}") from error


def _is_out_of_memory(error: Exception) -> bool:
    # Outside of CUDA, PyTorch has no error class of its own for this, only messages.
    return isinstance(error, MemoryError) or bool(
        _NO_MEMORY.search(f"{type(error).__name__}: {error}")
    )


def _to_device(model: Any, device: str) -> PreTrainedModel:
    try:
        return cast("PreTrainedModel", model.to(device).eval())
    except (RuntimeError, AssertionError) as error:
        if _is_out_of_memory(error):
            raise
        raise InputError(f"cannot use the device {device!r}: {first_line(error)}") from error


@contextmanager
def silent_transformers() -> Iterator[None]:
    """Keep Transformers from printing notices, progress bars and tables."""
    import transformers
    from transformers import modeling_gguf_pytorch_utils

    gguf_utils: Any = modeling_gguf_pytorch_utils  # does not export its tqdm
    logging: Any = transformers.utils.logging  # untyped
    # No setting of Transformers disables its progress bar over a GGUF file's tensors.
    tqdm, gguf_utils.tqdm = gguf_utils.tqdm, partial(gguf_utils.tqdm, disable=True)
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        gguf_utils.tqdm = tqdm
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def token_log_probabilities(
    model: PreTrainedModel,
    sequences: Sequence[Sequence[int]],
    *,
    batch_tokens: int = 2048,
    bfloat16: bool = False,
) -> list[NDArray[np.float64]]:
    """Return the log-probability of every token given those before it in its sequence.

    Args:
        model: A causal LM whose output has ``logits``; scored without dropout.
        sequences: Token ids, each no longer than the model's context.
        batch_tokens: Maximum number of tokens in one forward pass, padding included, unless a
            single sequence is longer; less for large vocabularies, see `MAX_BATCH_LOGITS`.
        bfloat16: Multiply in 16-bit floats: faster, with errors in the third digit.

    Returns:
        For each sequence of n tokens the n - 1 natural logarithms log p(token i | tokens
        before i); element i - 1 is token i's.

    Raises:
        ResourceError: If memory runs out.
    """
    import torch

    embeddings = cast("torch.Tensor", model.get_input_embeddings().weight)
    device = embeddings.device
    batch_tokens = min(batch_tokens, MAX_BATCH_LOGITS // len(embeddings))
    by_length = sorted(range(len(sequences)), key=lambda index: len(sequences[index]))
    scores: list[NDArray[np.float64]] = [np.empty(0)] * len(sequences)
    autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=bfloat16)
    with (
        out_of_memory_as_resource_error("scoring jokes"),
        eval_mode(model),
        torch.no_grad(),
        autocast,
    ):
        for batch in _batches(by_length, sequences, batch_tokens):
            # Sequences are padded on the right, which causal attention ignores: no mask is needed,
            # and attention takes its fast path.
            width = len(sequences[batch[-1]])
            rows = [[*sequences[i], *[0] * (width - len(sequences[i]))] for i in batch]
            input_ids = torch.tensor(rows, device=device)
            logits = model(input_ids=input_ids).logits
            batch_scores = _log_probabilities(logits, input_ids).cpu().numpy()
            for row, index in enumerate(batch):
                scores[index] = batch_scores[row, : len(sequences[index]) - 1]
    return scores


def _batches(
    by_length: Sequence[int], sequences: Sequence[Sequence[int]], batch_tokens: int
) -> Iterator[Sequence[int]]:
    """Cut indices sorted by length into batches whose padded size is within the limit."""
    cuts = [0]
    for position, index in enumerate(by_length):
        size = position - cuts[-1] + 1
        if size > 1 and size * len(sequences[index]) > batch_tokens:
            cuts.append(position)
    return (by_length[start:end] for start, end in pairwise([*cuts, len(by_length)]) if end > start)


def _log_probabilities(logits: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
    """Return the log-probability of each token given those before it: (batch, tokens - 1)."""
    # The last position is normalized too: slicing before would copy the logits.
    normalizers = logits.float().logsumexp(-1)[:, :-1]
    token_logits = logits[:, :-1].gather(-1, input_ids[:, 1:, None])[..., 0]
    return token_logits.double() - normalizers.double()


@contextmanager
def eval_mode(model: torch.nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, and restore its mode afterwards."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
