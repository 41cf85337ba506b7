"""Fine-tuning: a prepared folder and a configuration in, a model folder out.

Checkpoints lie in ``OUT/checkpoints`` until the model folder is whole. A run that was
killed goes on from the last one and ends with the same weights as if it had not been.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch.distributed import is_torchelastic_launched
from transformers import PrinterCallback, Trainer, TrainingArguments, set_seed

from joker.comedy.moderation import Moderator
from joker.core.config import make_config, read_config_file
from joker.core.errors import ConfigError, DataError, InputError, ModelFolderError, StoppedError
from joker.core.joke import Joke
from joker.core.model_folder import Manifest, ModelFolder, write_manifest
from joker.core.sampling import Sampling
from joker.core.template import Template, load_template
from joker.data.prepared import PreparedData
from joker.engines import open_engine
from joker.engines.base import Request
from joker.evaluation.figures import likelihood_figures
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
from joker.training.tracking import Tracker, TrackingCallback
from joker.training.trainer import JokeTrainer

CHECKPOINTS = "checkpoints"
SAMPLE_JOKES = 20

_RUN_FILE = "run.json"
_TRACKED_PACKAGES = ("torch", "transformers", "tokenizers", "accelerate", "gpt2-the-joker")
_RETRIEVAL_LIMIT = 500

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Run:
    """What a training run works with, the same when it is resumed."""

    data: PreparedData
    out: Path
    config: TrainingConfig
    template: Template

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints lie while the run goes on."""
        return self.out / CHECKPOINTS


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
    if resume:
        config = _resumed_config(data, out, config)
    run = Run(data, out, config, load_template(config.template).with_markers(config.markers))
    with translate_resource_errors(out):
        _claim(run, resume)
        return _train(run, latest_checkpoint(run.checkpoints) if resume else None, alias)


def _train(run: Run, checkpoint: Path | None, alias: str) -> ModelFolder | None:
    config = run.config
    set_seed(config.seed)
    jokes, flagged = _training_jokes(run)
    texts = (f"{joke.question} {joke.answer}" for joke in jokes)
    base = open_base(str(checkpoint) if checkpoint else config.base, run.template, texts)
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
            tracker.log_params({"training": settings, "data": _data_facts(run.data)})
            trainer.train(resume_from_checkpoint=start)
            if signals.stopped and trainer.state.global_step < trainer.state.max_steps:
                raise StoppedError(
                    f"stopped after {trainer.state.global_step} of {trainer.state.max_steps} "
                    f"steps; 'joker train --resume' goes on from {run.checkpoints}"
                )
            folder = _write_folder(run, base, settings, progress.tokens_per_second)
            curve = plots.loss_curve(trainer.state.log_history, run.out / "loss.png")
            tracker.log_metrics(folder.manifest.metrics, trainer.state.global_step)
            tracker.log_jokes(_sample_jokes(folder, config.seed))
            tracker.log_file(curve)
            tracker.register(folder, alias)
    finally:
        signals.restore()
        progress.close()
    shutil.rmtree(run.checkpoints)
    return folder


def _training_jokes(run: Run) -> tuple[list[Joke], int]:
    """Return the jokes to train on and how many the moderation list took out."""
    jokes = [prepared.joke for prepared in run.data.jokes("train")]
    if not run.config.safe:
        return jokes, 0
    moderator = Moderator.default()
    kept = [joke for joke in jokes if not moderator.check(f"{joke.question}\n{joke.answer}")]
    return kept, len(jokes) - len(kept)


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
    if not len(rows) or not rows.token_count:
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
    return rows.token_count / len(rows) * float(min(step_rows, len(rows)))


def _claim(run: Run, resume: bool) -> None:
    """Make the folder ours and write down what the run is, or refuse to overwrite another's."""
    if run.out.exists() and not run.out.is_dir():
        raise ModelFolderError(f"{run.out} is a file; name a folder for the model")
    if resume:
        return
    if latest_checkpoint(run.checkpoints):
        raise ModelFolderError(
            f"{run.out} holds an unfinished training: go on with --resume, or remove the folder"
        )
    if run.out.is_dir() and any(path != run.checkpoints for path in run.out.iterdir()):
        raise ModelFolderError(f"{run.out} is not empty: name another folder or remove it")
    run.checkpoints.mkdir(parents=True, exist_ok=True)
    facts = {"config": asdict(run.config), "data": run.data.manifest.fingerprint}
    (run.checkpoints / _RUN_FILE).write_text(json.dumps(facts, indent=2), encoding="utf-8")


def _resumed_config(data: PreparedData, out: Path, config: TrainingConfig) -> TrainingConfig:
    """Return the settings a run began with, refusing other data."""
    path = out / CHECKPOINTS / _RUN_FILE
    if not path.is_file():
        raise InputError(f"there is no unfinished training in {out} to resume")
    facts = read_config_file(path)
    if facts["data"] != data.manifest.fingerprint:
        raise DataError(f"{data.path} is not the data that the training in {out} began with")
    begun = make_config(TrainingConfig, facts["config"])
    if config not in (begun, TrainingConfig()):
        raise ConfigError(f"a resumed training keeps its settings: those in {path}")
    return begun


def _resolved(trainer: Trainer, rows: Rows) -> dict[str, Any]:
    """Return what the settings came to on this machine and data."""
    return {
        "rows": len(rows),
        "row_fill": round(rows.fill, 4),
        "tokens_per_epoch": rows.token_count,
        "jokes_too_long": rows.too_long,
        "compiled": trainer.args.torch_compile,
        "processes": trainer.args.world_size,
        "device": trainer.args.device.type,
    }


def _data_facts(data: PreparedData) -> dict[str, Any]:
    manifest = data.manifest
    return {
        "fingerprint": manifest.fingerprint,
        "split": manifest.split,
        "seed": manifest.seed,
        "train_jokes": len(data.jokes("train")),
        "test_jokes": len(data.jokes("test")),
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
        data=_data_facts(run.data),
        training=settings,
        packages={name: version(name) for name in _TRACKED_PACKAGES},
        metrics={**figures.to_dict(), "tokens_per_second": tokens_per_second},
    )
    write_card(run.out, manifest)
    write_manifest(run.out, manifest)
    return ModelFolder.open(run.out)


def _sample_jokes(folder: ModelFolder, seed: int) -> list[Joke]:
    """Return what the model makes of so many tries with an empty prompt, unpicked."""
    engine = open_engine(folder, "transformers")
    requests = [Request("", Sampling(), seed + index) for index in range(SAMPLE_JOKES)]
    parsed = (engine.tokenizer.parse(done.token_ids) for done in engine.generate(requests))
    return [joke for joke in parsed if joke]
