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
from pathlib import Path
from typing import Any

import torch
from torch._inductor import config as inductor
from torch.distributed import is_torchelastic_launched
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainingArguments

from joker.core.errors import DataError
from joker.core.tokenizer import EncodedJoke
from joker.engines.likelihood import without_dropout
from joker.training.base_model import Base
from joker.training.config import TrainingConfig
from joker.training.hardware import resolve_compile
from joker.training.packing import IGNORED, Rows, block_rows, pack_jokes, pad_jokes

logger = logging.getLogger(__name__)

_LOGITS_AT_ONCE = 2**24
"""Logits whose losses are computed at once, 64 MiB in 32-bit floats."""
_SAME_LOSS = 0.01
"""Nats by which a token's loss may differ between a packed row and its joke alone."""


def make_trainer(
    base: Base,
    encoded: Sequence[EncodedJoke],
    config: TrainingConfig,
    precision: torch.dtype,
    checkpoints: Path,
) -> tuple[Trainer, Rows]:
    """Return a Trainer as the settings ask for it, and the rows it goes through.

    Args:
        base: What is trained.
        encoded: What it reads.
        config: The settings.
        precision: Number format of matrix products.
        checkpoints: Folder for checkpoints.

    Raises:
        DataError: If what it reads does not fill one row.
    """
    plain = config.packing == "blocks" and all(joke.weight == 1 for joke in encoded)
    arguments = TrainingArguments(
        **_arguments(config, checkpoints), bf16=plain and precision is torch.bfloat16
    )
    step_rows = config.batch_size * config.gradient_accumulation_steps * arguments.world_size
    if config.packing == "blocks":
        rows = block_rows(encoded, config.block_size)
    else:
        pad_id = base.joke_tokenizer.end_id
        rows = joke_rows(base.model, encoded, config.block_size, pad_id, step_rows)
    if not rows.used:
        raise DataError(
            f"the training split does not fill one row of {config.block_size} tokens; "
            "prepare more jokes or lower --block-size"
        )
    if rows.too_long:
        logger.warning(
            "%d jokes exceed %d tokens and are left out", rows.too_long, config.block_size
        )
    steps = config.max_steps or math.ceil(len(rows) / step_rows * config.epochs)
    arguments.warmup_steps = math.ceil(steps * config.warmup)
    parts: dict[str, Any] = {"model": base.model, "args": arguments, "train_dataset": rows}
    if plain:
        trainer = Trainer(**parts)
    else:
        passes = math.ceil(len(rows) * config.epochs / config.batch_size)
        arguments.torch_compile = resolve_compile(
            config.compile, config.max_steps * config.gradient_accumulation_steps or passes
        )
        trainer = JokeTrainer(autocast=precision, **parts)
    trainer.processing_class = base.tokenizer
    # Transformers announces its own progress on standard output; ours is on standard error.
    trainer.pop_callback(PrinterCallback)
    return trainer, rows


def _arguments(config: TrainingConfig, checkpoints: Path) -> dict[str, Any]:
    """Return what `transformers.TrainingArguments` get."""
    on_cuda = torch.cuda.is_available()
    return {
        "output_dir": str(checkpoints),
        "seed": config.seed,
        "per_device_train_batch_size": config.batch_size,
        "gradient_accumulation_steps": config.gradient_accumulation_steps,
        "learning_rate": config.peak_learning_rate,
        "weight_decay": config.weight_decay,
        "adam_beta2": config.beta2,
        "lr_scheduler_type": "constant_with_warmup"
        if config.schedule == "constant"
        else config.schedule,
        "num_train_epochs": config.epochs,
        "max_steps": config.max_steps or -1,
        "save_strategy": "epoch",
        "save_total_limit": 2,
        "logging_steps": 10,
        "logging_first_step": True,
        "report_to": [],
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "use_cpu": not on_cuda,
        "ddp_backend": "gloo" if is_torchelastic_launched() and not on_cuda else None,
    }


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
    rows = max(1, _LOGITS_AT_ONCE // logits[0].numel())
    if len(logits) <= rows:
        return token_losses_at_once(logits, labels)
    parts = zip(torch.split(logits, rows), torch.split(labels, rows), strict=True)
    losses: list[torch.Tensor] = [
        checkpoint(token_losses_at_once, *part, use_reentrant=False, preserve_rng_state=False)
        for part in parts
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
        "so a step sees fewer tokens: raise --batch-size or --gradient-accumulation-steps "
        "to make up for it",
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
