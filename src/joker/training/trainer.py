"""Transformers' Trainer with what jokes need: a loss that shows the answer's share.

Rows cut by the original's recipe go through the Trainer untouched. Rows of whole jokes, and
blocks whose jokes differ in weight, get their loss here, under autocast and, where the model
is compiled, compiled too. The Trainer's own autocast would copy the logits to 32 bits, which
is a large part of a step on a CPU.
"""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._inductor import config as inductor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel, Trainer

from joker.core.tokenizer import EncodedJoke
from joker.engines.likelihood import without_dropout
from joker.training.packing import IGNORED, Rows, pack_jokes, pad_jokes

logger = logging.getLogger(__name__)

_LOGITS_AT_ONCE = 2**24
"""Logits whose losses are computed at once, 64 MiB in 32-bit floats."""
_SAME_LOSS = 0.01
"""Nats by which a token's loss may differ between a packed row and its joke alone."""


def token_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the natural-log loss of each label given the logits one place before it.

    Rows are taken a few at a time and computed again for their gradient, so that of a large
    vocabulary's logits only the logits themselves and their gradient are held whole.

    Args:
        logits: Shape (rows, length, vocabulary), any float type.
        labels: Shape (rows, length); `IGNORED` places get a loss of 0.

    Returns:
        Shape (rows, length - 1), float32.
    """
    parts = math.ceil(logits.numel() / _LOGITS_AT_ONCE)
    if parts <= 1:
        return token_losses_at_once(logits, labels)
    losses: list[torch.Tensor] = [
        checkpoint(token_losses_at_once, *part, use_reentrant=False, preserve_rng_state=False)
        for part in zip(logits.chunk(parts), labels.chunk(parts), strict=True)
    ]
    return torch.cat(losses)


def token_losses_at_once(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return what `token_losses` does, with several copies of the logits unless compiled."""
    kept = logits[:, :-1].float()
    return functional.cross_entropy(
        kept.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED, reduction="none"
    ).view(kept.shape[:2])


def prepare_for_packed_rows(model: PreTrainedModel) -> None:
    """Set a model up so that each row's texts are attended to apart."""
    # A cache makes Transformers take a packed row for one text.
    model.config.use_cache = False


def joke_rows(
    model: PreTrainedModel,
    jokes: Sequence[EncodedJoke],
    block_size: int,
    pad_id: int,
    multiple: int = 1,
) -> Rows:
    """Pack jokes into rows, or give each its own where the model would let them see one another.

    Arguments are those of `joker.training.packing.pack_jokes`; the model, whose cache is
    switched off, is run on one row.
    """
    prepare_for_packed_rows(model)
    if keeps_jokes_apart(model, jokes, block_size, pad_id):
        return pack_jokes(jokes, block_size, pad_id, multiple)
    logger.warning(
        "%s does not keep the jokes of a packed row apart; each joke gets a row of its own, "
        "so a step sees fewer tokens: raise --batch-size or --accumulation to make up for it",
        type(model).__name__,
    )
    return pad_jokes(jokes, block_size, pad_id, multiple)


def keeps_jokes_apart(
    model: PreTrainedModel, jokes: Sequence[EncodedJoke], block_size: int, pad_id: int
) -> bool:
    """Say whether jokes in one packed row cost what each costs alone.

    Masks between jokes follow from ``position_ids``, which some architectures ignore.

    Args:
        model: A causal LM prepared by `prepare_for_packed_rows`; left in the mode it was in.
        jokes: Encoded jokes, of which some that fit into one row are tried.
        block_size: Tokens per row.
        pad_id: Token for the places left over.
    """
    parameters = inspect.signature(model.forward).parameters.values()
    if not any(each.name == "position_ids" or each.kind is each.VAR_KEYWORD for each in parameters):
        return False
    tried: list[EncodedJoke] = []
    for joke in jokes:
        if sum(map(len, tried)) + len(joke) <= block_size:
            tried.append(joke)
    if len(tried) < 2:
        return True
    tried.sort(key=len, reverse=True)  # their order in a packed row
    both = (pack_jokes(tried, block_size, pad_id), pad_jokes(tried, block_size, pad_id))
    with without_dropout(model), torch.no_grad():
        together, alone = (_label_losses(model, rows.tensors) for rows in both)
    return torch.allclose(together, alone, rtol=0, atol=_SAME_LOSS)


def _label_losses(model: PreTrainedModel, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the loss of every label, row by row."""
    on_device = {name: tensor.to(model.device) for name, tensor in tensors.items()}
    losses = token_losses(model(**_model_inputs(on_device)).logits, on_device["labels"])
    return losses[on_device["labels"][:, 1:] != IGNORED]


def _model_inputs(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensors[name] for name in ("input_ids", "position_ids") if name in tensors}


class JokeTrainer(Trainer):
    """A Trainer for rows with ``weights``; reports ``answer_loss`` beside ``loss``.

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
            torch.compile(token_losses_at_once) if compiled else token_losses
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
            outputs = model(**_model_inputs(inputs))
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
