"""Fine-tuning: a prepared folder and a configuration in, a model folder out.

Combines the base, packed rows, the Trainer, callbacks, metrics and MLflow, and writes the folder.
`joker.training.run_state` starts and resumes runs.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from joker.core.errors import ConfigError, StoppedError
from joker.core.fingerprints import Fingerprints
from joker.core.joke import Joke, Sampling
from joker.core.model_folder import Manifest, ModelFolder, write_manifest
from joker.data.prepared import PreparedData
from joker.engines.weights import eval_mode
from joker.evaluation.held_out import HeldOut
from joker.evaluation.likelihood_metrics import ModelScorer, likelihood_metrics
from joker.training import tracking
from joker.training.base_model import (
    Base,
    earlier_trainings,
    fingerprints_with,
    freeze_layers,
    open_base,
    set_dropout,
)
from joker.training.callbacks import (
    CheckpointCallback,
    ProgressCallback,
    SignalCallback,
    latest_checkpoint,
)
from joker.training.config import TrainingConfig
from joker.training.filtering import Selection, select_jokes, validation_jokes
from joker.training.hardware import (
    flops_per_token,
    keep_freed_memory,
    matrix_rate,
    quiet_libraries,
    resolve_precision,
    translate_resource_errors,
)
from joker.training.hub import write_card
from joker.training.packing import encode_selection
from joker.training.run_state import Run, begin_run, resume_run
from joker.training.trainer import JokeTrainer, make_trainer

SAMPLE_JOKES = 8
"""Number of sample jokes after each evaluation."""

_TRACKED_PACKAGES = ("torch", "transformers", "tokenizers", "accelerate", "gpt2-the-joker")
_RETRIEVAL_LIMIT = 500


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
        data: The prepared folder; its test split is only measured on, at the end.
        out: The model folder to create.
        config: The settings; a resumed run keeps its own.
        resume: Continue from the last checkpoint in ``out``.
        alias: Alias of the new version of the registered model in MLflow.

    Returns:
        The model folder; None in all processes but the first, which writes it.

    Raises:
        InputError: If base, template, data, settings or folder cannot be used.
        MissingDependencyError: If a package that ``report_to`` needs is not installed.
        StoppedError: If a signal ended it early; a checkpoint is there.
        ResourceError: If memory or disk ran out.
    """
    keep_freed_memory()
    quiet_libraries()
    with translate_resource_errors(out):
        run = resume_run(data, out, config) if resume else begin_run(data, out, config)
        with tracking.track(out.name, run.config):
            return _train(run, latest_checkpoint(run.checkpoints), alias)


def _train(run: Run, checkpoint: Path | None, alias: str) -> ModelFolder | None:
    config = run.config
    set_seed(config.seed)
    precision = resolve_precision(config.precision)
    reporters = tracking.reporters(config, run.logs)
    validation = validation_jokes(run.data, config.validation_limit)
    selection = select_jokes(run.data, config, validation)
    base = _open_base(run, selection, checkpoint)
    encoded = encode_selection(base.joke_tokenizer, selection, config.seed, verdicts=config.critic)
    trainer = make_trainer(run, base, encoded, [one.joke for one in validation], precision)
    settings = config.to_dict() | _resolved(trainer, base, selection, len(validation))

    def sample(step: int) -> list[Joke]:
        jokes = sample_jokes(base, config.seed)
        rows = [{"step": step, "question": j.question, "answer": j.answer} for j in jokes]
        tracking.log_table(rows, "sample_jokes.json")
        return jokes

    progress = ProgressCallback(trainer.tokens_per_step, trainer.validation_tokens, sample)
    signals = SignalCallback()
    checkpoints = CheckpointCallback(config.checkpoint_minutes)
    for callback in (*reporters, checkpoints, signals, progress):
        trainer.add_callback(callback)
    tracking.log_params({"training": settings, "data": run.data_facts})
    _log_data(run, selection, [one.joke for one in validation])
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        state = trainer.state
        if not state.is_world_process_zero:
            return None
        if signals.stopped and state.global_step < state.max_steps:
            raise StoppedError(
                f"stopped after {state.global_step} of {state.max_steps} steps; "
                f"'joker train --resume' continues from {run.checkpoints}"
            )
    finally:
        signals.restore()
        progress.close()
    measured = {
        "validation_bits_per_byte": _last(state.log_history, "eval_bits_per_byte"),
        "evaluation_share": progress.evaluation_share,
        **_speed(trainer, base, config, precision, progress.tokens_per_second),
    }
    fingerprints = fingerprints_with(config.base, selection.jokes)
    folder = write_folder(run, base, settings, fingerprints, measured)
    tracking.log_metrics(folder.manifest.metrics, state.global_step)
    tracking.log_file(tracking.loss_plot(state.log_history, run.out / "loss.png"))
    shutil.rmtree(run.checkpoints)  # the registered model is a copy of the folder
    tracking.register(folder, alias)
    return folder


def sample_jokes(base: Base, seed: int, sampling: Sampling | None = None) -> list[Joke]:
    """Generate a few jokes with Transformers; texts that are not jokes are left out.

    Args:
        base: The model in training; its mode and PyTorch's random state are restored.
        seed: Random seed.
        sampling: Sampling parameters.
    """
    drawn = sampling or Sampling()
    device: Any = base.model.device
    prompt = base.joke_tokenizer.encode_prompt()
    ids = torch.tensor([prompt] * SAMPLE_JOKES, device=device)
    generate: Any = base.model.generate  # half typed
    with torch.random.fork_rng(), eval_mode(base.model), torch.no_grad():
        torch.manual_seed(seed)
        rows = generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=drawn.temperature > 0,
            temperature=drawn.temperature or None,
            top_k=drawn.top_k,
            top_p=drawn.top_p,
            max_new_tokens=min(drawn.max_new_tokens, base.context_length - len(prompt)),
            pad_token_id=base.joke_tokenizer.end_id,
            use_cache=True,  # which training does without
        )
    told = map(base.joke_tokenizer.parse, rows.tolist())
    return [joke for joke in told if joke]


def write_folder(
    run: Run,
    base: Base,
    settings: Mapping[str, Any],
    fingerprints: Fingerprints,
    measured: Mapping[str, float],
) -> ModelFolder:
    """Evaluate a trained model on the test split and write its folder, the manifest last.

    Args:
        run: The run whose folder is written.
        base: The trained model with its tokenizer; its weights are first rounded to their data type
            on disk, so that the model evaluated is the model written.
        settings: The training settings for ``joker.json``.
        fingerprints: Fingerprints of all jokes that the model was trained on.
        measured: Metrics of the training itself, added to those on the test split.
    """
    out, config = run.out, run.config
    base.model.config.use_cache = True
    module: torch.nn.Module = base.model  # PreTrainedModel's own `to` has lost its types
    module.to(getattr(torch, config.weights))
    base.model.save_pretrained(out)
    module.to(torch.float32)
    for file in out.glob("*.safetensors"):
        file.chmod(0o644)  # written for the owner only, but servers run as somebody else
    base.tokenizer.save_pretrained(out)
    fingerprints.save(out)
    keep_freed_memory(False)
    held_out = _test_jokes(run)
    metrics = likelihood_metrics(
        ModelScorer(base.model, base.joke_tokenizer),
        base.context_length,
        held_out.jokes,
        held_out.clusters,
        known=[fingerprints.estimate(joke).near_duplicate for joke in held_out.jokes],
        seed=config.seed,
        retrieval_limit=min(_RETRIEVAL_LIMIT, config.test_limit),
    )
    manifest = Manifest(
        template=run.template,
        base_model=config.base,
        context_length=base.context_length,
        data=run.data_facts,
        training=dict(settings),
        packages={name: version(name) for name in _TRACKED_PACKAGES},
        metrics={**metrics.to_dict(), **measured},
        earlier=earlier_trainings(config.base),
    )
    write_card(out, manifest)
    write_manifest(out, manifest)
    return ModelFolder.open(out)


def _test_jokes(run: Run) -> HeldOut:
    """Return the jokes of the test split on which the trained model is evaluated."""
    return HeldOut.of(run.data).sample(run.config.test_limit, run.config.seed)


def _log_data(run: Run, selection: Selection, validation: Sequence[Joke]) -> None:
    """Record the jokes for training and evaluation as inputs of the run."""
    parts: dict[str, Sequence[Joke]] = {
        "training": selection.jokes,
        "validation": validation,
        "test": _test_jokes(run).jokes,
    }
    for part, jokes in parts.items():
        tracking.log_data(run.data.path, f"{run.data.path.name}-{part}", part, jokes)
    for name in (run.config.extra_jokes, run.config.preferences):
        if name:
            tracking.log_data(Path(name), Path(name).name, "training")


def _open_base(run: Run, selection: Selection, checkpoint: Path | None) -> Base:
    """Return the model to train."""
    config = run.config
    base = open_base(
        str(checkpoint) if checkpoint else config.base,
        run.template,
        (f"{joke.question} {joke.answer}" for joke in selection.jokes),
        vocabulary_size=None if checkpoint else config.vocabulary_size,
        keep_layers=None if checkpoint else config.keep_layers,
        critic=config.critic,
        round_up_to=1 if config.recipe == "original" else 64,
    )
    if config.block_size > base.context_length:
        raise ConfigError(
            f"setting 'block_size' is {config.block_size}, but {config.base} has a "
            f"context of {base.context_length} tokens; lower it"
        )
    if config.resolved_dropout is not None:
        set_dropout(base.model, config.resolved_dropout)
    freeze_layers(base.model, config.freeze_layers, base.joke_tokenizer.added_ids)
    return base


def _resolved(
    trainer: JokeTrainer, base: Base, selection: Selection, validation: int
) -> dict[str, Any]:
    """Return the settings that depend on the machine and the data."""
    rows = trainer.rows
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
        "jokes_validation": validation,
    }


def _speed(
    trainer: JokeTrainer,
    base: Base,
    config: TrainingConfig,
    precision: torch.dtype,
    tokens_per_second: float,
) -> dict[str, float]:
    """Return the metrics of training speed."""
    arguments = trainer.args
    flops = tokens_per_second * flops_per_token(base.model, config.block_size)
    rate = arguments.world_size * matrix_rate(arguments.device, precision)
    return {"tokens_per_second": tokens_per_second, "mfu": flops / rate}


def _last(history: Sequence[Mapping[str, float]], name: str) -> float:
    """Return the latest value of a metric in the Trainer's reports."""
    return next(entry[name] for entry in reversed(history) if name in entry)
