"""Fine-tuning: a prepared folder and a configuration in, a model folder out.

Puts a base, packed rows, the Trainer, callbacks, figures and MLflow together. What a run
is, and how one is taken up again, stands in `joker.training.run`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainingArguments, set_seed

from joker.core.errors import ConfigError, DataError
from joker.core.model_folder import Manifest, ModelFolder
from joker.core.similarity import normalise
from joker.core.tokenizer import EncodedJoke, JokeTokenizer
from joker.data.prepared import PreparedData
from joker.training.base import (
    Base,
    earlier_trainings,
    fingerprints_with,
    freeze_layers,
    open_base,
    set_dropout,
)
from joker.training.callbacks import latest_checkpoint
from joker.training.config import TrainingConfig
from joker.training.machine import (
    keep_freed_memory,
    quiet_libraries,
    resolve_compile,
    resolve_precision,
    translate_resource_errors,
)
from joker.training.packing import Rows, block_rows
from joker.training.run import Run, begin_run, resume_run
from joker.training.selection import Selection, select_jokes, stock_phrases
from joker.training.session import Session, trainer_settings, write_folder
from joker.training.trainer import JokeTrainer, joke_rows

logger = logging.getLogger(__name__)


def finetune(
    data: PreparedData,
    out: Path,
    config: TrainingConfig,
    *,
    resume: bool = False,
    alias: str = "newest",
) -> ModelFolder | None:
    """Train a model on the training split and write a model folder.

    Args:
        data: The prepared folder; its test split is only measured on.
        out: The model folder to make.
        config: The settings; a resumed run keeps those it began with.
        resume: Go on from the last checkpoint in ``out``.
        alias: What the registered model's new version is called in MLflow.

    Returns:
        The model folder; None in all processes but the first, which writes it.

    Raises:
        InputError: If base, layout, data, settings or folder cannot be used.
        StoppedError: If a signal ended it early; a checkpoint is there.
        ResourceError: If memory or disk ran out.
    """
    keep_freed_memory()
    quiet_libraries()
    with translate_resource_errors(out):
        run = resume_run(data, out, config) if resume else begin_run(data, out, config)
        return _train(run, latest_checkpoint(run.checkpoints), alias)


def _train(run: Run[TrainingConfig], checkpoint: Path | None, alias: str) -> ModelFolder | None:
    config = run.config
    set_seed(config.seed)
    selection = select_jokes(run.data, config)
    jokes = selection.jokes
    texts = (f"{joke.question} {joke.answer}" for joke in jokes)
    base = open_base(
        str(checkpoint) if checkpoint else config.base,
        run.template,
        texts,
        vocabulary_size=None if checkpoint else config.vocabulary_size,
        critic=bool(config.preferences),
        round_up_to=1 if config.recipe == "original" else 64,
    )
    if config.block_size > base.context_length:
        raise ConfigError(
            f"setting 'block_size' is {config.block_size}, but {config.base} looks at "
            f"{base.context_length} tokens at most"
        )
    if config.resolved_dropout is not None:
        set_dropout(base.model, config.resolved_dropout)
    freeze_layers(base.model, config.freeze_layers)
    trainer, rows = _trainer(run, base, _encode(base.joke_tokenizer, selection))
    settings = config.to_dict() | _resolved(trainer, rows)
    settings |= {
        "jokes": len(jokes),
        "jokes_flagged": selection.flagged,
        "jokes_leaked": selection.leaked,
        "jokes_rated": len(selection.rated),
    }
    manifest = Manifest(
        template=run.template,
        base_model=config.base,
        context_length=base.context_length,
        data=run.data_facts,
        training=settings,
        earlier=earlier_trainings(config.base),
    )
    session = Session(
        trainer=trainer,
        out=run.out,
        checkpoints=run.checkpoints,
        checkpoint_minutes=config.checkpoint_minutes,
        tokens_per_step=_tokens_per_step(trainer, rows),
        row=config.block_size,
        precision=resolve_precision(config.precision),
        verb="train",
    )
    return session.train(
        checkpoint,
        params={"training": settings, "data": run.data_facts},
        write=lambda speed: write_folder(
            run.out,
            base,
            run.data,
            manifest,
            fingerprints_with(config.base, jokes),
            weights=config.weights,
            test_limit=config.test_limit,
            seed=config.seed,
            speed=speed,
        ),
        alias=alias,
    )


def _encode(tokenizer: JokeTokenizer, selection: Selection) -> list[EncodedJoke]:
    """Return what a model reads: every joke, in both orders where it learns both, and verdicts."""
    encoded = [tokenizer.encode(joke) for joke in selection.jokes]
    if tokenizer.template.punchline_first:
        stock = stock_phrases(selection.jokes)
        encoded += [
            tokenizer.encode_punchline_first(joke)
            for joke in selection.jokes
            if normalise(joke.answer) in stock
        ]
    return encoded + [tokenizer.encode_verdict(joke, works) for joke, works in selection.rated]


def _trainer(
    run: Run[TrainingConfig], base: Base, encoded: Sequence[EncodedJoke]
) -> tuple[Trainer, Rows]:
    """Return the Trainer for a run and the rows it goes through."""
    config = run.config
    precision = resolve_precision(config.precision)
    settings = trainer_settings(run.checkpoints, config.seed) | {
        "per_device_train_batch_size": config.batch_size,
        "gradient_accumulation_steps": config.accumulation,
        "learning_rate": config.peak_learning_rate,
        "weight_decay": config.weight_decay,
        "adam_beta2": config.beta2,
        "lr_scheduler_type": "constant_with_warmup"
        if config.schedule == "constant"
        else config.schedule,
        "num_train_epochs": config.epochs,
        "max_steps": config.max_steps or -1,
        "save_strategy": "epoch",
    }
    plain = config.packing == "blocks" and all(joke.weight == 1 for joke in encoded)
    arguments = TrainingArguments(**settings, bf16=plain and precision is torch.bfloat16)
    step_rows = config.batch_size * config.accumulation * arguments.world_size
    if config.packing == "blocks":
        rows = block_rows(encoded, config.block_size)
    else:
        pad_id = base.joke_tokenizer.end_id
        rows = joke_rows(base.model, encoded, config.block_size, pad_id, step_rows)
    _require_rows(rows, config)
    if plain:
        trainer = Trainer(model=base.model, args=arguments, train_dataset=rows)
    else:
        passes = math.ceil(len(rows) * config.epochs / config.batch_size)
        arguments.torch_compile = resolve_compile(
            config.compile, config.max_steps * config.accumulation or passes
        )
        trainer = JokeTrainer(
            autocast=precision, model=base.model, args=arguments, train_dataset=rows
        )
    if rows.too_long:
        logger.warning(
            "%d jokes exceed %d tokens and are left out", rows.too_long, config.block_size
        )
    steps = config.max_steps or math.ceil(len(rows) / step_rows * config.epochs)
    arguments.warmup_steps = math.ceil(steps * config.warmup)
    trainer.processing_class = base.tokenizer
    return trainer, rows


def _require_rows(rows: Rows, config: TrainingConfig) -> None:
    if not rows.used:
        raise DataError(
            f"the training split fills not even one row of {config.block_size} tokens; "
            "prepare more jokes or lower --block-size"
        )


def _tokens_per_step(trainer: Trainer, rows: Rows) -> float:
    arguments = trainer.args
    step_rows = (
        arguments.per_device_train_batch_size
        * arguments.gradient_accumulation_steps
        * arguments.world_size
    )
    return rows.used / len(rows) * float(min(step_rows, len(rows)))


def _resolved(trainer: Trainer, rows: Rows) -> dict[str, Any]:
    """Return what the settings came to on this machine and data."""
    return {
        "rows": len(rows),
        "row_fill": round(rows.fill, 4),
        "tokens_per_epoch": rows.used,
        "jokes_too_long": rows.too_long,
        "compiled": trainer.args.torch_compile,
        "processes": trainer.args.world_size,
        "device": trainer.args.device.type,
    }
