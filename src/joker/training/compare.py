"""Comparing templates: one model for each, with the same base and settings.

In MLflow, a parent run has the table and the plot, and each template a child run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from joker.core.errors import InputError
from joker.core.model_folder import ModelFolder
from joker.core.template import MarkerKind, Template, load_template
from joker.data.prepared import PreparedData
from joker.training import tracking
from joker.training.config import TrainingConfig
from joker.training.finetune import finetune
from joker.training.hardware import quiet_libraries
from joker.training.run_state import CHECKPOINTS


@dataclass(frozen=True, slots=True)
class Comparison:
    """The models of a comparison by their template's label, and the label of the best."""

    folders: dict[str, ModelFolder]
    winner: str

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """Each template's metrics, those on validation jokes among them."""
        return {label: folder.manifest.metrics for label, folder in self.folders.items()}


def load_templates(names: Sequence[str], kinds: Sequence[MarkerKind]) -> list[tuple[str, Template]]:
    """Return each named template with each kind of markers; without kinds, with its own.

    Raises:
        InputError: If two have the same label.
    """
    choices: Sequence[MarkerKind | None] = kinds or [None]
    templates = [
        (name, load_template(name).with_markers(kind)) for name in names for kind in choices
    ]
    labels = [template.label for _, template in templates]
    if len(set(labels)) < len(labels):
        raise InputError(f"two templates have the same name among {', '.join(labels)}")
    return templates


def compare(
    data: PreparedData,
    out: Path,
    config: TrainingConfig,
    templates: Sequence[tuple[str, Template]],
) -> Comparison:
    """Train one model for each template under ``out``, and find the best on validation jokes.

    Model folders that an interrupted comparison left there are reused, and an unfinished run is
    resumed.

    Args:
        data: The prepared folder.
        out: A folder for the models, one subfolder for each template's label.
        config: All settings except for the template's.
        templates: Templates from `load_templates`.

    Raises:
        InputError: If data, settings or a folder cannot be used.
        StoppedError: If a signal ended it early.
    """
    quiet_libraries()
    folders: dict[str, ModelFolder] = {}
    with tracking.track(f"compare-{out.name}", config):
        tracking.log_params({"training": config.to_dict(), "templates": len(templates)})
        for name, template in templates:
            template_config = replace(config, template=name, markers=template.markers)
            torch.compiler.reset()
            folders[template.label] = _train_or_reuse(data, out / template.label, template_config)
        winner = min(folders, key=lambda label: _bits_per_byte(folders[label]))
        result = Comparison(folders, winner)
        for label, metrics in result.metrics.items():
            tracking.log_metrics({f"{label}.{key}": value for key, value in metrics.items()})
        columns = sorted(set().union(*result.metrics.values()))
        tracking.log_table(
            [
                {"template": label, **{name: metrics.get(name) for name in columns}}
                for label, metrics in result.metrics.items()
            ],
            "comparison.json",
        )
        tracking.log_file(tracking.comparison_plot(result.metrics, out / "comparison.png"))
        tracking.log_params({"winner": result.winner})
        tracking.register(folders[result.winner], "champion")
    return result


def _train_or_reuse(data: PreparedData, out: Path, config: TrainingConfig) -> ModelFolder:
    checkpoints = out / CHECKPOINTS
    if out.is_dir() and not checkpoints.is_dir():
        folder = ModelFolder.open(out)
        if folder.manifest.data.get("fingerprint") != data.manifest.fingerprint:
            raise InputError(f"{out} was trained on other data; name another folder")
        return folder
    trained = finetune(data, out, config, resume=checkpoints.is_dir(), alias="newest")
    if trained is None:
        raise InputError("compare runs in one process; use torchrun with 'joker train'")
    return trained


def _bits_per_byte(folder: ModelFolder) -> float:
    """Return bits per byte on validation jokes; the test split must not pick the winner."""
    try:
        return folder.manifest.metrics["validation_bits_per_byte"]
    except KeyError:
        raise InputError(
            f"{folder.path} was not evaluated on validation jokes: remove it, and compare again"
        ) from None
