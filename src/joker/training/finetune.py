"""Fine-tuning: a prepared folder and a configuration in, a model folder out.

Puts a base, packed rows, the Trainer, callbacks, figures and MLflow together. What a run
is, and how one is taken up again, stands in `joker.training.run`.
"""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch.distributed import is_torchelastic_launched
from transformers import PrinterCallback, Trainer, TrainingArguments, set_seed

from joker.core.errors import ConfigError, DataError, StoppedError
from joker.core.joke import Joke
from joker.core.model_folder import Manifest, ModelFolder, write_manifest
from joker.data.prepared import PreparedData
from joker.engines import open_engine
from joker.evaluation.figures import likelihood_figures
from joker.evaluation.telling import first_tries
from joker.training import plots
from joker.training.base import Base, open_base, set_dropout
from joker.training.callbacks import (
    CheckpointCallback,
    ProgressCallback,
    SignalCallback,
    latest_checkpoint,
)
from joker.training.card import write_card
from joker.training.config import TrainingConfig
from joker.training.machine import (
    keep_freed_memory,
    quiet_libraries,
    resolve_compile,
    resolve_precision,
    translate_resource_errors,
)
from joker.training.packing import Rows, block_rows, pack_jokes
from joker.training.run import Run, begin_run, resume_run
from joker.training.tracking import Tracker, TrackingCallback
from joker.training.trainer import JokeTrainer

SAMPLE_JOKES = 20

_TRACKED_PACKAGES = ("torch", "transformers", "tokenizers", "accelerate", "gpt2-the-joker")
_RETRIEVAL_LIMIT = 500

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


def _train(run: Run, checkpoint: Path | None, alias: str) -> ModelFolder | None:
    config = run.config
    set_seed(config.seed)
    jokes, flagged = run.training_jokes()
    texts = (f"{joke.question} {joke.answer}" for joke in jokes)
    base = open_base(
        str(checkpoint) if checkpoint else config.base,
        run.template,
        texts,
        round_up_to=1 if config.recipe == "original" else 64,
    )
    if config.block_size > base.context_length:
        raise ConfigError(
            f"setting 'block_size' is {config.block_size}, but {config.base} looks at "
            f"{base.context_length} tokens at most"
        )
    if config.resolved_dropout is not None:
        set_dropout(base.model, config.resolved_dropout)
    trainer, rows = _trainer(run, base, jokes)
    progress = ProgressCallback(_tokens_per_step(trainer, rows))
    signals = SignalCallback()
    start = str(checkpoint) if checkpoint else None
    for callback in (CheckpointCallback(config.checkpoint_minutes), signals, progress):
        trainer.add_callback(callback)
    try:
        if not trainer.is_world_process_zero():
            trainer.train(resume_from_checkpoint=start)
            return None
        with Tracker(run.out.name) as tracker:
            trainer.add_callback(TrackingCallback(tracker))
            settings = config.to_dict() | _resolved(trainer, rows) | {"jokes_flagged": flagged}
            tracker.log_params({"training": settings, "data": run.data_facts})
            trainer.train(resume_from_checkpoint=start)
            if signals.stopped and trainer.state.global_step < trainer.state.max_steps:
                raise StoppedError(
                    f"stopped after {trainer.state.global_step} of {trainer.state.max_steps} "
                    f"steps; 'joker train --resume' goes on from {run.checkpoints}"
                )
            folder = _write_folder(run, base, settings, progress.tokens_per_second)
            curve = plots.loss_curve(trainer.state.log_history, run.out / "loss.png")
            tracker.log_metrics(folder.manifest.metrics, trainer.state.global_step)
            tries = first_tries(open_engine(folder, "transformers"), SAMPLE_JOKES, seed=config.seed)
            tracker.log_jokes([joke for joke in tries if joke])
            tracker.log_file(curve)
            tracker.register(folder, alias)
    finally:
        signals.restore()
        progress.close()
    shutil.rmtree(run.checkpoints)
    return folder


def _trainer(run: Run, base: Base, jokes: Sequence[Joke]) -> tuple[Trainer, Rows]:
    """Return the Trainer for a run and the rows it goes through."""
    config = run.config
    precision = resolve_precision(config.precision)
    on_cuda = torch.cuda.is_available()
    encoded = [base.joke_tokenizer.encode(joke) for joke in jokes]
    settings: dict[str, Any] = {
        "output_dir": str(run.checkpoints),
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
        "seed": config.seed,
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
    if config.packing == "blocks":
        rows = block_rows(encoded, config.block_size)
        _require_rows(rows, config)
        arguments = TrainingArguments(**settings, bf16=precision is torch.bfloat16)
        trainer = Trainer(model=base.model, args=arguments, train_dataset=rows)
    else:
        arguments = TrainingArguments(**settings)
        step_rows = config.batch_size * config.accumulation * arguments.world_size
        rows = pack_jokes(encoded, config.block_size, base.joke_tokenizer.end_id, step_rows)
        _require_rows(rows, config)
        passes = math.ceil(len(rows) * config.epochs / config.batch_size)
        arguments.torch_compile = resolve_compile(
            config.compile, config.max_steps * config.accumulation or passes
        )
        if not on_cuda:
            # Rows are short: fused attention's backward pass costs a fifth of a step more here.
            base.model.set_attn_implementation("eager")
        # A cache makes Transformers take a packed row for one text.
        base.model.config.use_cache = False
        trainer = JokeTrainer(
            autocast=precision, model=base.model, args=arguments, train_dataset=rows
        )
    if rows.too_long:
        logger.warning(
            "%d jokes exceed %d tokens and are left out", rows.too_long, config.block_size
        )
    steps = config.max_steps or math.ceil(
        len(rows) / (config.batch_size * config.accumulation * arguments.world_size) * config.epochs
    )
    arguments.warmup_steps = math.ceil(steps * config.warmup)
    trainer.processing_class = base.tokenizer
    # Transformers announces its own progress on standard output; ours is on standard error.
    trainer.pop_callback(PrinterCallback)
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


def _write_folder(
    run: Run, base: Base, settings: dict[str, Any], tokens_per_second: float
) -> ModelFolder:
    """Measure the model and write its folder, the manifest last."""
    base.model.config.use_cache = True
    base.model.save_pretrained(run.out)
    for weights in run.out.glob("*.safetensors"):
        weights.chmod(0o644)  # written for the owner only, but servers run as somebody else
    base.tokenizer.save_pretrained(run.out)
    test = run.data.jokes("test")[: run.config.test_limit]
    figures = likelihood_figures(
        base.model,
        base.joke_tokenizer,
        [prepared.joke for prepared in test],
        [prepared.cluster for prepared in test],
        seed=run.config.seed,
        retrieval_limit=min(_RETRIEVAL_LIMIT, run.config.test_limit),
    )
    manifest = Manifest(
        template=run.template,
        base_model=run.config.base,
        context_length=base.context_length,
        data=run.data_facts,
        training=settings,
        packages={name: version(name) for name in _TRACKED_PACKAGES},
        metrics={**figures.to_dict(), "tokens_per_second": tokens_per_second},
    )
    write_card(run.out, manifest)
    write_manifest(run.out, manifest)
    return ModelFolder.open(run.out)
