"""Fine-tuning: a prepared folder and a configuration in, a model folder out.

Puts a base, packed rows, the Trainer, callbacks, metrics and MLflow together. What a run
is, and how one is taken up again, stands in `joker.training.run_state`.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, set_seed

from joker.core.errors import ConfigError, StoppedError
from joker.core.model_folder import ModelFolder
from joker.data.prepared import PreparedData
from joker.engines import engine_for_model
from joker.evaluation.text_metrics import first_tries
from joker.training import plots
from joker.training.base_model import Base, fingerprints_with, freeze_layers, open_base, set_dropout
from joker.training.callbacks import (
    CheckpointCallback,
    ProgressCallback,
    SignalCallback,
    latest_checkpoint,
)
from joker.training.config import TrainingConfig
from joker.training.encoding import encode_selection
from joker.training.filtering import Selection, select_jokes
from joker.training.folder import write_folder
from joker.training.hardware import (
    keep_freed_memory,
    quiet_libraries,
    resolve_precision,
    translate_resource_errors,
)
from joker.training.packing import Rows
from joker.training.run_state import Run, begin_run, resume_run
from joker.training.tracking import Tracker, TrackingCallback
from joker.training.trainer import make_trainer
from joker.training.utilization import flops_per_token, matrix_rate

SAMPLE_JOKES = 20


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
        InputError: If base, template, data, settings or folder cannot be used.
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
    precision = resolve_precision(config.precision)
    selection = select_jokes(run.data, config)
    base = _open_base(run, selection, checkpoint)
    encoded = encode_selection(base.joke_tokenizer, selection, config.seed)
    trainer, rows = make_trainer(base, encoded, config, precision, run.checkpoints)
    settings = config.to_dict() | _resolved(trainer, base, rows, selection)
    progress, signals = ProgressCallback(_tokens_per_step(trainer, rows)), SignalCallback()
    for callback in (CheckpointCallback(config.checkpoint_minutes), signals, progress):
        trainer.add_callback(callback)
    start = str(checkpoint) if checkpoint else None
    try:
        if not trainer.is_world_process_zero():
            trainer.train(resume_from_checkpoint=start)
            return None
        with Tracker(run.out.name) as tracker:
            trainer.add_callback(TrackingCallback(tracker))
            tracker.log_params({"training": settings, "data": run.data_facts})
            trainer.train(resume_from_checkpoint=start)
            state = trainer.state
            if signals.stopped and state.global_step < state.max_steps:
                raise StoppedError(
                    f"stopped after {state.global_step} of {state.max_steps} steps; "
                    f"'joker train --resume' goes on from {run.checkpoints}"
                )
            speed = _speed(trainer, base, config, precision, progress.tokens_per_second)
            fingerprints = fingerprints_with(config.base, selection.jokes)
            folder = write_folder(run, base, settings, fingerprints, speed)
            tracker.log_metrics(folder.manifest.metrics, state.global_step)
            engine = engine_for_model(base.model, base.joke_tokenizer, base.context_length)
            tries = first_tries(engine, SAMPLE_JOKES, seed=config.seed)
            tracker.log_jokes([joke for joke in tries if joke])
            tracker.log_file(plots.loss_curve(state.log_history, run.out / "loss.png"))
            tracker.register(folder, alias)
    finally:
        signals.restore()
        progress.close()
    shutil.rmtree(run.checkpoints)
    return folder


def _open_base(run: Run, selection: Selection, checkpoint: Path | None) -> Base:
    """Return the model to train, as the settings want it."""
    config = run.config
    base = open_base(
        str(checkpoint) if checkpoint else config.base,
        run.template,
        (f"{joke.question} {joke.answer}" for joke in selection.jokes),
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
    freeze_layers(base.model, config.freeze_layers, base.joke_tokenizer.added_ids)
    return base


def _tokens_per_step(trainer: Trainer, rows: Rows) -> float:
    """Return the mean number of tokens in an optimizer step, padding left out."""
    arguments = trainer.args
    step_rows = (
        arguments.per_device_train_batch_size
        * arguments.gradient_accumulation_steps
        * arguments.world_size
    )
    return rows.used / len(rows) * float(min(step_rows, len(rows)))


def _resolved(trainer: Trainer, base: Base, rows: Rows, selection: Selection) -> dict[str, Any]:
    """Return what the settings came to on this machine and data."""
    return {
        "parameters": base.model.num_parameters(),
        "rows": len(rows),
        "row_fill": round(rows.fill, 4),
        "tokens_per_epoch": rows.used,
        "jokes_too_long": rows.too_long,
        "compiled": trainer.args.torch_compile,
        "processes": trainer.args.world_size,
        "device": trainer.args.device.type,
        "jokes": len(selection.jokes),
        "jokes_flagged": selection.flagged,
        "jokes_leaked": selection.leaked,
        "jokes_rated": len(selection.rated),
    }


def _speed(
    trainer: Trainer,
    base: Base,
    config: TrainingConfig,
    precision: torch.dtype,
    tokens_per_second: float,
) -> dict[str, float]:
    """Return the metrics of the training's speed."""
    arguments = trainer.args
    flops = tokens_per_second * flops_per_token(base.model, config.block_size)
    rate = arguments.world_size * matrix_rate(arguments.device, precision)
    return {"tokens_per_second": tokens_per_second, "mfu": flops / rate}
