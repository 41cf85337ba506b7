"""Transformers' Trainer with what jokes need: a loss that shows the answer's share.

Rows cut by the original's recipe go through the Trainer untouched. Packed rows get
their loss here, under autocast and, where the model is compiled, compiled too. The Trainer's
own autocast would copy the logits to 32 bits, which is a large part of a step on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch._inductor import config as inductor
from torch.nn import functional
from transformers import PreTrainedModel, Trainer

from joker.training.packing import IGNORED


def token_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the natural-log loss of each label given the logits one place before it.

    Args:
        logits: Shape (rows, length, vocabulary), any float type.
        labels: Shape (rows, length); `IGNORED` places get a loss of 0.

    Returns:
        Shape (rows, length - 1), float32.
    """
    kept = logits[:, :-1].float()
    return functional.cross_entropy(
        kept.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED, reduction="none"
    ).view(kept.shape[:2])


def prepare_for_packed_rows(model: PreTrainedModel) -> None:
    """Set a model up so that each row's texts are attended to apart."""
    # A cache makes Transformers take a packed row for one text.
    model.config.use_cache = False


class JokeTrainer(Trainer):
    """A Trainer for packed rows; reports ``answer_loss`` beside ``loss``.

    Args:
        autocast: Number format of matrix products; float32 leaves autocast off.
        **settings: What `transformers.Trainer` takes.
    """

    def __init__(self, *, autocast: torch.dtype, **settings: Any) -> None:
        super().__init__(**settings)
        self._autocast = autocast
        # Compiled code's own random numbers are drawn one at a time on a CPU; PyTorch's are faster,
        # and the same as without compiling.
        inductor.fallback_random = True
        compiled = bool(self.args.torch_compile)
        self._token_losses: Callable[..., torch.Tensor] = (
            torch.compile(token_losses) if compiled else token_losses
        )
        self._answer_loss = torch.zeros(2, dtype=torch.float64)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Return the mean loss per predicted token over the whole optimizer step."""
        labels, answers = inputs["labels"], inputs.get("answer_mask")
        device = labels.device.type
        enabled = self._autocast is not torch.float32
        with torch.autocast(device, dtype=self._autocast, enabled=enabled):
            outputs = model(input_ids=inputs["input_ids"], position_ids=inputs["position_ids"])
        predicted = labels[:, 1:] != IGNORED
        losses = self._token_losses(outputs.logits, labels)[predicted]
        total = (losses * inputs["weights"][:, 1:][predicted]).sum()
        if model.training and answers is not None:
            told = losses.detach()[answers[:, 1:][predicted]]
            self._answer_loss += torch.tensor([told.sum(), len(told)], dtype=torch.float64)
        if num_items_in_batch is None:
            loss = total / predicted.sum().clamp(min=1)
        else:
            loss = total / num_items_in_batch * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the answers' mean loss since the last report to a report of the loss."""
        if "loss" in logs:
            mine = self._answer_loss.to(self.args.device, torch.float32)
            total, count = self.accelerator.reduce(mine, reduction="sum").tolist()
            if count:
                logs["answer_loss"] = total / count
            self._answer_loss.zero_()
        super().log(logs, start_time)
