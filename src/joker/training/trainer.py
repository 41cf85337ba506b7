"""Transformers' Trainer with the loss of answers, bits per byte, and distillation.

The loss is computed here, under autocast, and compiled if the model is. The Trainer's own autocast
would convert the logits to float32, which takes a large part of a step on a CPU.
"""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._inductor import config as inductor
from torch.distributed import is_torchelastic_launched
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    default_data_collator,
)

from joker.core.errors import DataError
from joker.core.joke import Joke
from joker.core.tokenizer import EncodedJoke
from joker.engines.weights import MAX_BATCH_LOGITS, eval_mode, token_log_probabilities
from joker.training.base_model import Base, open_teacher
from joker.training.hardware import resolve_compile
from joker.training.packing import IGNORE_INDEX, Rows, block_rows, pack_jokes, pad_jokes
from joker.training.run_state import Run

logger = logging.getLogger(__name__)

_SAME_LOSS = 0.01
"""Nats by which a token's loss may differ between a packed row and a row of its joke alone."""


def make_trainer(
    run: Run,
    base: Base,
    encoded: Sequence[EncodedJoke],
    validation: Sequence[Joke],
    precision: torch.dtype,
) -> JokeTrainer:
    """Return a Trainer for a run.

    Args:
        run: The settings, and the folder for checkpoints.
        base: The model to train.
        encoded: The training jokes.
        validation: Jokes on which the model is evaluated during training.
        precision: Data type of matrix products.

    Raises:
        DataError: If the training jokes do not fill a row, or no validation joke fits the context.
        InputError: If the teacher cannot be used.
    """
    config = run.config
    teacher = (
        open_teacher(config.teacher, base, run.template, config.block_size)
        if config.teacher
        else None
    )
    arguments = TrainingArguments(**_arguments(run))
    step_rows = config.batch_size * config.gradient_accumulation_steps * arguments.world_size
    if config.packing == "blocks":
        rows = block_rows(encoded, config.block_size)
    else:
        pad_id = base.joke_tokenizer.end_id
        models = [base.model, teacher] if teacher else [base.model]
        rows = joke_rows(models, encoded, config.block_size, pad_id, step_rows)
    if not rows.used:
        raise DataError(
            f"the training split does not fill a row of {config.block_size} tokens; "
            "prepare more jokes or lower --block-size"
        )
    if rows.too_long:
        logger.warning(
            "%d jokes exceed %d tokens and are left out", rows.too_long, config.block_size
        )
    steps = config.max_steps or math.ceil(len(rows) / step_rows * config.epochs)
    arguments.warmup_steps = math.ceil(steps * config.warmup)
    passes = math.ceil(len(rows) * config.epochs / config.batch_size)
    arguments.torch_compile = resolve_compile(
        config.compile, config.max_steps * config.gradient_accumulation_steps or passes
    )
    trainer = JokeTrainer(base, rows, validation, precision, arguments)
    if teacher:
        trainer.learn_from(teacher, config.distillation_weight)
    if not trainer.validation_tokens:
        raise DataError(
            f"none of the validation jokes ({len(validation)}) fits the "
            f"model's context of {base.context_length} tokens; prepare more jokes"
        )
    # Transformers announces its own progress on standard output; ours is on standard error.
    trainer.pop_callback(PrinterCallback)
    return trainer


def _arguments(run: Run) -> dict[str, Any]:
    """Return the arguments of `transformers.TrainingArguments`."""
    config, on_cuda = run.config, torch.cuda.is_available()
    return {
        "output_dir": str(run.checkpoints),
        "run_name": run.out.name,
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
    """Return the loss in nats of each label given the logits of the previous position.

    Args:
        logits: Shape (rows, length, vocabulary), any float type.
        labels: Shape (rows, length); `IGNORE_INDEX` positions have a loss of 0.

    Returns:
        Shape (rows, length - 1), float32.
    """
    return _few_rows_at_a_time(token_losses_at_once, logits, labels)


def token_losses_at_once(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Compute `token_losses` at once, with several copies of the logits unless compiled."""
    kept = logits[:, :-1].float()
    return functional.cross_entropy(
        kept.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORE_INDEX, reduction="none"
    ).view(kept.shape[:2])


def divergences(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return KL(targets || logits) of the next token in nats, at all positions but the last.

    Args:
        logits: Shape (rows, length, vocabulary), any float type.
        targets: The teacher's logits. Entries beyond the smaller number of embedding rows are
            ignored.

    Returns:
        Shape (rows, length - 1), float32.
    """
    return _few_rows_at_a_time(divergences_at_once, logits, targets)


def divergences_at_once(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Compute `divergences` at once, with several copies of the logits unless compiled."""
    size = min(logits.shape[-1], targets.shape[-1])
    found, wanted = (each[:, :-1, :size].float().log_softmax(-1) for each in (logits, targets))
    return functional.kl_div(found, wanted, reduction="none", log_target=True).sum(-1)


def _few_rows_at_a_time(
    function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    logits: torch.Tensor,
    others: torch.Tensor,
) -> torch.Tensor:
    """Apply a function to a few rows of logits at a time, recomputed in the backward pass.

    With a large vocabulary, no more than the logits and their gradient are then held in full.
    """
    rows = max(1, MAX_BATCH_LOGITS // logits[0].numel())
    if len(logits) <= rows:
        return function(logits, others)
    parts = zip(torch.split(logits, rows), torch.split(others, rows), strict=True)
    found: list[torch.Tensor] = [
        checkpoint(function, *part, use_reentrant=False, preserve_rng_state=False) for part in parts
    ]
    return torch.cat(found)


def joke_rows(
    models: Sequence[PreTrainedModel],
    jokes: Sequence[EncodedJoke],
    block_size: int,
    pad_id: int,
    multiple: int = 1,
) -> Rows:
    """Pack jokes into rows, or give each its own row if a model attends across packed jokes.

    The arguments are those of `joker.training.packing.pack_jokes`; the models, whose cache is
    turned off, are run on one row.
    """
    for model in models:
        # With a cache, Transformers treats a packed row as one text.
        model.config.use_cache = False
        if not keeps_jokes_apart(model, jokes, block_size, pad_id):
            logger.warning(
                "%s attends across packed jokes, so packing is off and steps have fewer tokens: "
                "raise --batch-size or --gradient-accumulation-steps to make up for it",
                type(model).__name__,
            )
            return pad_jokes(jokes, block_size, pad_id, multiple)
    return pack_jokes(jokes, block_size, pad_id, multiple)


def keeps_jokes_apart(
    model: PreTrainedModel, jokes: Sequence[EncodedJoke], block_size: int, pad_id: int
) -> bool:
    """Return whether jokes have the same loss packed into one row as each alone.

    Masks between jokes follow from ``position_ids``, which some architectures ignore.

    Args:
        model: A causal LM whose cache is off; its mode is restored.
        jokes: Encoded jokes, of which as many are tried as fit into one row.
        block_size: Tokens per row.
        pad_id: Padding token.
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
    with eval_mode(model), torch.no_grad():
        together, alone = (_label_losses(model, rows.tensors) for rows in both)
    return torch.allclose(together, alone, rtol=0, atol=_SAME_LOSS)


def _label_losses(model: PreTrainedModel, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the loss of every label, row by row."""
    on_device = {name: tensor.to(model.device) for name, tensor in tensors.items()}
    losses = token_losses(model(**_model_inputs(on_device)).logits, on_device["labels"])
    return losses[on_device["labels"][:, 1:] != IGNORE_INDEX]


def _model_inputs(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensors[name] for name in ("input_ids", "position_ids") if name in tensors}


class JokeTrainer(Trainer):
    """A Trainer that also reports ``answer_loss`` and evaluates bits per byte.

    Args:
        base: The model to train.
        rows: The training data.
        validation: Jokes for `evaluate`; those that exceed the context are left out.
        precision: Data type of matrix products; float32 turns autocast off.
        arguments: Transformers' own.

    Attributes:
        rows: The training data.
    """

    def __init__(
        self,
        base: Base,
        rows: Rows,
        validation: Sequence[Joke],
        precision: torch.dtype,
        arguments: TrainingArguments,
    ) -> None:
        super().__init__(
            model=base.model,
            args=arguments,
            train_dataset=rows,
            data_collator=default_data_collator,  # all rows have the same length
            processing_class=base.tokenizer,
        )
        base.model.config.use_cache = False
        self.rows = rows
        self._base = base
        encoded = [(joke, base.joke_tokenizer.encode(joke).input_ids) for joke in validation]
        fitting = [(joke, ids) for joke, ids in encoded if len(ids) <= base.context_length]
        self._validation = [ids for _, ids in fitting]
        self._validation_bytes = sum(joke.byte_count for joke, _ in fitting)
        self._precision = precision
        # Inductor's random numbers are drawn one at a time on a CPU; PyTorch's are faster, and the
        # same as without compiling.
        inductor.fallback_random = True
        self._compiled = bool(self.args.torch_compile)
        self._token_losses: Callable[..., torch.Tensor] = (
            torch.compile(token_losses_at_once) if self._compiled else token_losses
        )
        self._divergences: Callable[..., torch.Tensor] = (
            torch.compile(divergences_at_once) if self._compiled else divergences
        )
        self._teacher: Any = None
        self._teacher_weight = 0.0
        self._answer_loss = torch.zeros(2, dtype=torch.float64)

    def learn_from(self, teacher: PreTrainedModel, weight: float) -> None:
        """Distill a teacher, too.

        Args:
            teacher: A causal LM with the same vocabulary, in evaluation mode.
            weight: Weight of the divergence from its predictions in the loss; cross-entropy on the
                jokes gets the rest.
        """
        teacher.config.use_cache = False
        module: torch.nn.Module = teacher
        module.to(self.args.device)
        self._teacher = torch.compile(module) if self._compiled else module
        self._teacher_weight = weight

    @property
    def tokens_per_step(self) -> float:
        """Mean number of tokens per optimizer step, all processes together, without padding."""
        batch = self.args.per_device_train_batch_size * self.args.gradient_accumulation_steps
        step_rows = min(batch * self.args.world_size, len(self.rows))
        return self.rows.used / len(self.rows) * float(step_rows)

    @property
    def validation_tokens(self) -> int:
        """Number of tokens in an evaluation."""
        return sum(map(len, self._validation))

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Evaluate the model on the validation jokes, each alone, and report the metrics.

        Returns:
            ``eval_loss`` in nats per token and ``eval_bits_per_byte``, as in ``docs/metrics.md``.
        """
        bfloat16 = self._precision is torch.bfloat16
        scores = token_log_probabilities(self._base.model, self._validation, bfloat16=bfloat16)
        nats, tokens = -sum(float(each.sum()) for each in scores), sum(map(len, scores))
        metrics = {
            "eval_loss": nats / tokens,
            "eval_bits_per_byte": nats / math.log(2) / self._validation_bytes,
        }
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Return the mean loss per predicted token of the whole optimizer step."""
        labels, answers = inputs["labels"], inputs.get("answer_mask")
        device = labels.device.type
        enabled = self._precision is not torch.float32
        with torch.autocast(device, dtype=self._precision, enabled=enabled):
            outputs = model(**_model_inputs(inputs))
        predicted = labels[:, 1:] != IGNORE_INDEX
        losses = learned = self._token_losses(outputs.logits, labels)[predicted]
        if self._teacher is not None:
            with torch.no_grad(), torch.autocast(device, dtype=self._precision, enabled=enabled):
                targets = self._teacher(**_model_inputs(inputs)).logits
            divergence = self._divergences(outputs.logits, targets)[predicted]
            learned = torch.lerp(losses, divergence, self._teacher_weight)
        total = (learned * inputs["weights"][:, 1:][predicted]).sum()
        if model.training and answers is not None:
            told = losses.detach()[answers[:, 1:][predicted]]
            self._answer_loss += torch.tensor([told.sum(), len(told)], dtype=torch.float64)
        if num_items_in_batch is None:
            loss = total / predicted.sum().clamp(min=1)
        else:
            loss = total / num_items_in_batch * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the mean loss of answers since the last report to reports of the loss."""
        if "loss" in logs:
            mine = self._answer_loss.to(self.args.device, torch.float32)
            total, count = self.accelerator.reduce(mine, reduction="sum").tolist()
            if count:
                logs["answer_loss"] = total / count
            self._answer_loss.zero_()
        super().log(logs, start_time)
