"""Model FLOPs utilization (MFU): the share of what a device can multiply that a training used.

The operations are those that the model's own mathematics needs, so recomputing and padding
count as waste: 6 for each multiplied parameter and 12 × layers × width × row for attention, a
token (Chowdhery et al. 2022, https://arxiv.org/abs/2204.02311, appendix B). They are divided by
what one large matrix product reaches on the device at hand, measured and not looked up: so the
figure means the same on a CPU and on a GPU.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from transformers import PreTrainedModel

_ROUNDS = 5


def flops_per_token(model: PreTrainedModel, row: int) -> float:
    """Return the floating point operations that training takes for a token.

    Args:
        model: A causal LM. Its matrix of the vocabulary counts once; tables that are only looked
            up in do not count.
        row: Tokens in a row of a batch, each of which attends to all of them.
    """
    output: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    looked_up = [
        module.weight.numel()
        for module in model.modules()
        if isinstance(module, torch.nn.Embedding) and module.weight is not output.weight
    ]
    multiplied = model.num_parameters() - sum(looked_up)
    attention = 12.0 * model.config.num_hidden_layers * model.config.hidden_size * row
    return float(6.0 * multiplied + attention)


def matrix_rate(device: torch.device, precision: torch.dtype) -> float:
    """Measure the floating point operations per second of a large matrix product.

    Args:
        device: Where; on a CPU with as many threads as PyTorch uses.
        precision: The number format of the factors.
    """
    size = 8192 if device.type == "cuda" else 2048
    left, right = torch.randn(2, size, size, device=device).to(precision)
    best = float("inf")
    for _ in range(_ROUNDS):
        begun = time.perf_counter()
        # One number is read, because a GPU computes while Python goes on.
        (left @ right)[0, 0].item()
        best = min(best, time.perf_counter() - begun)
    return 2.0 * size**3 / best
