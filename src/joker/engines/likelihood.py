"""Log-probabilities of tokens under a causal language model in PyTorch.

The Transformers engine scores answers with it, `joker.evaluation.likelihood_metrics` measures
models with it. What the numbers amount to is left to them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from numpy.typing import NDArray

from joker.engines.weights import out_of_memory_as_resource_error

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_LOGITS_AT_ONCE = 2**24
"""Logits of one forward pass, 64 MiB in 32-bit floats; the softmax holds as much again."""


def token_log_probabilities(
    model: PreTrainedModel,
    sequences: Sequence[Sequence[int]],
    *,
    batch_tokens: int = 2048,
    bfloat16: bool = False,
) -> list[NDArray[np.float64]]:
    """Score every token of every sequence given the tokens before it in the same sequence.

    Args:
        model: A causal LM whose output has ``logits``; scored without dropout, and left
            in the mode it was in.
        sequences: Token ids, each no longer than the model's positions.
        batch_tokens: Most tokens in one forward pass, padding included, beyond one sequence;
            fewer where the model's vocabulary is large, so that the logits take 64 MiB at most.
        bfloat16: Multiply in 16-bit floats: faster, with errors in the third digit.

    Returns:
        For each sequence of n tokens the n - 1 natural logarithms log p(token i | tokens
        before i); element i - 1 is token i's.

    Raises:
        ResourceError: If memory runs out.
    """
    embeddings = cast("torch.Tensor", model.get_input_embeddings().weight)
    device = embeddings.device
    batch_tokens = min(batch_tokens, _LOGITS_AT_ONCE // len(embeddings))
    by_length = sorted(range(len(sequences)), key=lambda index: len(sequences[index]))
    scores: list[NDArray[np.float64]] = [np.empty(0)] * len(sequences)
    autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=bfloat16)
    with (
        out_of_memory_as_resource_error("scoring jokes"),
        without_dropout(model),
        torch.no_grad(),
        autocast,
    ):
        for batch in _batches(by_length, sequences, batch_tokens):
            # Padding stands behind every sequence, where a causal model cannot see it:
            # no attention mask is needed, and attention takes its fast path.
            width = len(sequences[batch[-1]])
            rows = [[*sequences[i], *[0] * (width - len(sequences[i]))] for i in batch]
            input_ids = torch.tensor(rows, device=device)
            found = _log_probabilities(model(input_ids=input_ids).logits, input_ids).cpu().numpy()
            for row, index in enumerate(batch):
                scores[index] = found[row, : len(sequences[index]) - 1]
    return scores


def _batches(
    by_length: Sequence[int], sequences: Sequence[Sequence[int]], batch_tokens: int
) -> Iterator[Sequence[int]]:
    """Cut indices sorted by length into runs whose padded size keeps to the limit."""
    cuts = [0]
    for place, index in enumerate(by_length):
        if place > cuts[-1] and (place - cuts[-1] + 1) * len(sequences[index]) > batch_tokens:
            cuts.append(place)
    return (by_length[start:end] for start, end in pairwise([*cuts, len(by_length)]) if end > start)


def _log_probabilities(logits: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
    """Return log softmax of each token given those before it: shape (batch, tokens - 1)."""
    # All places are normalized, the last one too: leaving it out would copy the logits.
    normalizers = logits.float().logsumexp(-1)[:, :-1]
    wanted = logits[:, :-1].gather(-1, input_ids[:, 1:, None])[..., 0]
    return wanted.double() - normalizers.double()


@contextmanager
def without_dropout(model: torch.nn.Module) -> Iterator[None]:
    """Let a model drop nothing out, and leave it in the mode it was in."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
