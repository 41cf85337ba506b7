"""A training session: a Trainer with progress, checkpoints, signals and MLflow around it.

Fine-tuning and pretraining differ in what they train on and how; what happens around
the steps, and how the model folder is written at the end, is the same and stands here.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch
from torch.distributed import is_torchelastic_launched
from transformers import PreTrainedModel, PrinterCallback, Trainer

from joker.core.errors import StoppedError
from joker.core.fingerprints import Fingerprints
from joker.core.model_folder import Manifest, ModelFolder, write_manifest
from joker.data.prepared import PreparedData
from joker.engines import open_engine
from joker.evaluation.figures import likelihood_figures
from joker.evaluation.held_out import HeldOut
from joker.evaluation.telling import first_tries
from joker.training import plots
from joker.training.base import Base
from joker.training.callbacks import CheckpointCallback, ProgressCallback, SignalCallback
from joker.training.card import write_card
from joker.training.config import Weights
from joker.training.machine import keep_freed_memory
from joker.training.tracking import Tracker, TrackingCallback
from joker.training.utilization import flops_per_token, matrix_rate

SAMPLE_JOKES = 20

_TRACKED_PACKAGES = ("torch", "transformers", "tokenizers", "accelerate", "gpt2-the-joker")
_RETRIEVAL_LIMIT = 500


def trainer_settings(output_dir: Path, seed: int) -> dict[str, Any]:
    """Return what `transformers.TrainingArguments` get in every session."""
    on_cuda = torch.cuda.is_available()
    return {
        "output_dir": str(output_dir),
        "seed": seed,
        "save_total_limit": 2,
        "logging_steps": 10,
        "logging_first_step": True,
        "report_to": [],
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "use_cpu": not on_cuda,
        "ddp_backend": "gloo" if is_torchelastic_launched() and not on_cuda else None,
    }


@dataclass(frozen=True, slots=True)
class Session:
    """What goes on around a Trainer's steps.

    Attributes:
        trainer: Ready to train.
        out: The model folder to make.
        checkpoints: Where checkpoints lie meanwhile; removed at the end.
        checkpoint_minutes: Minutes between checkpoints.
        tokens_per_step: Tokens read in one optimizer step, padding left out.
        row: Tokens in a row of a batch.
        precision: Number format of matrix products.
        verb: The command that goes on with ``--resume``.
    """

    trainer: Trainer
    out: Path
    checkpoints: Path
    checkpoint_minutes: float
    tokens_per_step: float
    row: int
    precision: torch.dtype
    verb: str

    def train(
        self,
        checkpoint: Path | None,
        params: Mapping[str, Any],
        write: Callable[[Mapping[str, float]], ModelFolder],
        alias: str,
    ) -> ModelFolder | None:
        """Train to the end, write the model folder and register it.

        Args:
            checkpoint: Where to go on from.
            params: What MLflow gets as parameters.
            write: Writes the folder, given the figures of the training's speed.
            alias: What the registered model's new version is called in MLflow.

        Returns:
            The model folder; None in all processes but the first, which writes it.

        Raises:
            StoppedError: If a signal ended it early; a checkpoint is there.
        """
        trainer = self.trainer
        # Transformers announces its own progress on standard output; ours is on standard error.
        trainer.pop_callback(PrinterCallback)
        progress = ProgressCallback(self.tokens_per_step)
        signals = SignalCallback()
        for callback in (CheckpointCallback(self.checkpoint_minutes), signals, progress):
            trainer.add_callback(callback)
        start = str(checkpoint) if checkpoint else None
        flops = flops_per_token(cast("PreTrainedModel", trainer.model), self.row)
        try:
            if not trainer.is_world_process_zero():
                trainer.train(resume_from_checkpoint=start)
                return None
            with Tracker(self.out.name) as tracker:
                trainer.add_callback(TrackingCallback(tracker))
                tracker.log_params(params)
                trainer.train(resume_from_checkpoint=start)
                state = trainer.state
                if signals.stopped and state.global_step < state.max_steps:
                    raise StoppedError(
                        f"stopped after {state.global_step} of {state.max_steps} steps; "
                        f"'joker {self.verb} --resume' goes on from {self.checkpoints}"
                    )
                folder = write(self._speed(progress.tokens_per_second, flops))
                curve = plots.loss_curve(state.log_history, self.out / "loss.png")
                tracker.log_metrics(folder.manifest.metrics, state.global_step)
                engine = open_engine(folder, "transformers")
                tries = first_tries(engine, SAMPLE_JOKES, seed=trainer.args.seed)
                tracker.log_jokes([joke for joke in tries if joke])
                tracker.log_file(curve)
                tracker.register(folder, alias)
        finally:
            signals.restore()
            progress.close()
        shutil.rmtree(self.checkpoints)
        return folder

    def _speed(self, tokens_per_second: float, flops: float) -> dict[str, float]:
        """Return the speed's figures, given the operations that a token takes."""
        arguments = self.trainer.args
        reached = tokens_per_second * flops / arguments.world_size
        mfu = reached / matrix_rate(arguments.device, self.precision)
        return {"tokens_per_second": tokens_per_second, "mfu": mfu}


def write_folder(
    out: Path,
    base: Base,
    data: PreparedData,
    manifest: Manifest,
    fingerprints: Fingerprints,
    *,
    weights: Weights,
    test_limit: int,
    seed: int,
    speed: Mapping[str, float],
) -> ModelFolder:
    """Measure a trained model and write its folder, the manifest last.

    Args:
        out: The folder.
        base: The trained model with its tokenizer.
        data: Its test split is measured on.
        manifest: What ``joker.json`` says besides versions and figures.
        fingerprints: Of all jokes it was trained on.
        weights: Number format of the weights on disk; what is measured is what is written.
        test_limit: Most test jokes measured on, chosen at random.
        seed: Decides that choice and the wrong answers of punchline retrieval.
        speed: Figures of the training's speed, which join those measured here.
    """
    base.model.config.use_cache = True
    module: torch.nn.Module = base.model  # PreTrainedModel's own `to` has lost its types
    module.to(getattr(torch, weights))
    base.model.save_pretrained(out)
    module.to(torch.float32)
    for file in out.glob("*.safetensors"):
        file.chmod(0o644)  # written for the owner only, but servers run as somebody else
    base.tokenizer.save_pretrained(out)
    fingerprints.write(out)
    keep_freed_memory(False)
    held_out = HeldOut.of(data).sample(test_limit, seed)
    figures = likelihood_figures(
        base.model,
        base.joke_tokenizer,
        held_out.jokes,
        held_out.clusters,
        seed=seed,
        retrieval_limit=min(_RETRIEVAL_LIMIT, test_limit),
    )
    manifest = replace(
        manifest,
        packages={name: version(name) for name in _TRACKED_PACKAGES},
        metrics={**figures.to_dict(), **speed},
    )
    write_card(out, manifest)
    write_manifest(out, manifest)
    return ModelFolder.open(out)
