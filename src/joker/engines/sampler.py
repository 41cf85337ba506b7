"""Draw the next token of every row of a batch, each row by its own rules and its own number.

The order is that of Transformers' and OpenVINO's samplers: top-k, temperature, top-p.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from joker.core.sampling import Sampling
from joker.engines.protocol import is_greedy


def draw(
    logits: torch.Tensor, samplings: Sequence[Sampling], uniforms: Sequence[float]
) -> torch.Tensor:
    """Return one token id for each row.

    Args:
        logits: Scores of the next token, shape (rows, vocabulary).
        samplings: How each row is drawn.
        uniforms: A number from [0, 1) for each row: the inverse of the cumulative distribution
            is taken there.

    Returns:
        Token ids, shape (rows,).
    """
    vocabulary_size = logits.shape[-1]
    greedy = [is_greedy(sampling) for sampling in samplings]
    top_k = [
        1 if cold else min(sampling.top_k or vocabulary_size, vocabulary_size)
        for sampling, cold in zip(samplings, greedy, strict=True)
    ]
    temperature = [
        1.0 if cold else sampling.temperature
        for sampling, cold in zip(samplings, greedy, strict=True)
    ]

    def column(values: Sequence[float]) -> torch.Tensor:
        return torch.tensor(values, device=logits.device).unsqueeze(-1)

    scores, ids = logits.float().topk(max(top_k))
    ranks = torch.arange(scores.shape[-1], device=logits.device)
    scores = (scores / column(temperature)).masked_fill(ranks >= column(top_k), -torch.inf)
    probabilities = scores.softmax(-1)
    mass_before = probabilities.cumsum(-1) - probabilities
    top_p = column([sampling.top_p for sampling in samplings])
    # Rounding makes a token's mass before it reach 1 early; top_p = 1 must still keep it.
    probabilities = probabilities.masked_fill((mass_before >= top_p) & (top_p < 1), 0.0)
    cumulative = probabilities.cumsum(-1)
    targets = column(uniforms) * cumulative[:, -1:]
    chosen = (cumulative <= targets).sum(-1, keepdim=True)
    return ids.gather(-1, chosen).squeeze(-1)
