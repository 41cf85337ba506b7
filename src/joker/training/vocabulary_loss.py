"""Cross entropy over a large vocabulary with a gradient that costs a fraction of the exact one.

The products with the output matrix, one forward and two backward, are nearly half of a
step of DistilGPT2 on a CPU. For hidden states h_i, output vectors w_v and labels y_i

    p_vi = softmax_v(w_v . h_i),   loss_i = -log p_(y_i)i,   g_vi = p_vi - [v = y_i],

the gradients are sum_v g_vi w_v for h_i and sum_i g_vi h_i for w_v. Of each chunk of places
only the entries v that are a label or reach a probability of `THRESHOLD` somewhere keep
their g_vi: the gradient filter of Wijmans et al. 2024 (https://arxiv.org/abs/2411.09009).
The others are unlikely one by one but not together, so that leaving them out points every
h_i the wrong way. So the rest R is taken as independent of the place,

    g_vi ~ m_v n_i / M,   m_v = sum_i p_vi,   n_i = sum_(v in R) p_vi,   M = sum_i n_i,

which has the right sum for every entry and every place and costs two products of a matrix
with a vector. The loss itself is exact. `joker.training.trainer` calls this.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional
from transformers import PreTrainedModel

THRESHOLD = 2.0**-14
"""Probability from which an entry's gradient is exact. Wijmans et al. take 2**-12."""

_CHUNK = 1024
"""Places whose logits are held at once, and which share the entries that are kept."""

_BLOCK = 1024
"""Kept entries whose gradients are held at once."""

_MULTIPLE = 64
"""Chunks are filled up to a multiple of so many places. Logits of ever new sizes would break up
the memory that `keep_freed_memory` keeps, until there is none left."""


class VocabularyLoss:
    """Sums the losses of places, given their hidden states and the output matrix.

    Args:
        compiled: Compile the two passes over the logits.
        threshold: Probability from which an entry's gradient is exact; 0 makes all exact.
    """

    def __init__(self, *, compiled: bool, threshold: float = THRESHOLD) -> None:
        self.log_threshold = math.log(threshold) if threshold else -math.inf
        self.normalize: Callable[[torch.Tensor], torch.Tensor] = _normalize
        self.weigh: Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]] = (
            _weigh
        )
        if compiled:
            self.normalize = torch.compile(_normalize)
            self.weigh = torch.compile(_weigh)

    def __call__(
        self, hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the sum of the losses, to be differentiated, and each loss, which is not.

        Args:
            hidden: Shape (places, width), in the number format of the products.
            weight: The output matrix, shape (vocabulary, width), any number format.
            labels: Shape (places,).

        Returns:
            In nats and float32, shapes () and (places,).
        """
        total, losses = _Function.apply(hidden, weight, labels, self)  # type: ignore[no-untyped-call]
        return total, losses


class PassingHead(torch.nn.Module):
    """An output layer that, while it trains, hands the hidden states on for `VocabularyLoss`."""

    def __init__(self, weight: torch.nn.Parameter) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the hidden states in training, logits otherwise."""
        return hidden if self.training else functional.linear(hidden, self.weight)


def pass_hidden_states(model: PreTrainedModel) -> PassingHead | None:
    """Give a model a `PassingHead` where its logits are plain products with a matrix.

    Returns:
        The head; None if the model does more (a bias, scaled or capped logits) and keeps its own.
    """
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    if not isinstance(head, torch.nn.Linear) or head.bias is not None:
        return None
    with torch.no_grad():
        seen: list[torch.Tensor] = []
        watch = head.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
        logits = model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.device)).logits
        watch.remove()
    if len(seen) != 1 or not torch.equal(seen[0], logits):
        return None
    passing = PassingHead(head.weight).train(model.training)
    model.set_output_embeddings(passing)
    return passing


class _Function(torch.autograd.Function):
    """Finds gradients together with losses, while the logits are at hand, and scales them later."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        labels: torch.Tensor,
        loss: VocabularyLoss,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        matrix = weight.to(hidden.dtype)
        losses = hidden.new_empty(len(hidden), dtype=torch.float32)
        into_hidden = torch.empty_like(hidden)
        into_weight = torch.zeros_like(weight, dtype=torch.float32)
        for start in range(0, len(hidden), _CHUNK):
            here = slice(start, start + _CHUNK)
            wanted = labels[here]
            count = len(wanted)
            states = functional.pad(hidden[here], (0, 0, 0, -count % _MULTIPLE))
            # One row an entry: taking out entries then copies whole rows.
            logits = matrix @ states.T
            normalizers = loss.normalize(logits)
            places = torch.arange(count, device=wanted.device)
            losses[here] = normalizers[:count] - logits[wanted, places]
            normalizers[count:] = math.inf  # probability 0 at the places that fill up
            sums, peaks = loss.weigh(logits, normalizers)
            peaks[wanted] = math.inf
            kept = peaks >= loss.log_threshold
            found = torch.zeros_like(states, dtype=torch.float32)
            shares = found.new_ones(len(states))
            for entries in torch.split(kept.nonzero().squeeze(1), _BLOCK):
                gradient = (logits[entries] - normalizers).exp_()
                shares -= gradient.sum(0)
                told = places[(wanted >= entries[0]) & (wanted <= entries[-1])]
                gradient[torch.searchsorted(entries, wanted[told]), told] -= 1
                gradient = gradient.to(hidden.dtype)
                found += gradient.T @ matrix[entries]
                into_weight[entries] += (gradient @ states).float()
            sums[kept] = 0
            shares[count:] = 0
            shares = shares.clamp_(min=0) / sums.sum().clamp(min=torch.finfo(sums.dtype).tiny)
            found.addr_(shares, (sums.to(hidden.dtype)[None] @ matrix)[0].float())
            into_weight.addr_(sums, shares @ states.float())
            into_hidden[here] = found[:count]
        ctx.save_for_backward(into_hidden, into_weight)
        ctx.mark_non_differentiable(losses)
        return losses.sum(), losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: torch.Tensor, _: Any) -> tuple[torch.Tensor | None, ...]:
        into_hidden, into_weight = ctx.saved_tensors
        return into_hidden * scale, into_weight * scale, None, None


def _normalize(logits: torch.Tensor) -> torch.Tensor:
    """Return the logarithm of each column's sum of exponentials, shape (places,)."""
    return torch.logsumexp(logits.float(), 0)


def _weigh(logits: torch.Tensor, normalizers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each entry's summed probability and the logarithm of its greatest one."""
    logs = logits.float() - normalizers
    return logs.exp().sum(1), logs.amax(1)
