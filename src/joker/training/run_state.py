"""A training run: its data, settings and folder, started or resumed.

Until the model folder is complete, ``OUT/checkpoints`` has the checkpoints and a record of the
settings and data. A killed run resumes from the last checkpoint and ends with the same weights as
an uninterrupted one.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from joker.core.errors import ConfigError, DataError, InputError, ModelFolderError
from joker.core.record import make_record, read_config_file
from joker.core.template import Template, load_template
from joker.data.prepared import PreparedData
from joker.training.callbacks import latest_checkpoint
from joker.training.config import TrainingConfig

CHECKPOINTS = "checkpoints"

_LOGS = "runs"
_RECORD = "run.json"


@dataclass(frozen=True, slots=True)
class Run:
    """A training run's prepared folder, the model folder to create, and its settings."""

    data: PreparedData
    out: Path
    config: TrainingConfig

    @property
    def template(self) -> Template:
        """The template that the settings name."""
        template = load_template(self.config.template).with_markers(self.config.markers)
        return replace(
            template, punchline_first=template.punchline_first or self.config.punchline_first
        )

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints, until the run is finished."""
        return self.out / CHECKPOINTS

    @property
    def logs(self) -> Path:
        """The folder of TensorBoard's files, which stays in the model folder."""
        return self.out / _LOGS

    @property
    def data_facts(self) -> dict[str, Any]:
        """The model folder manifest's facts about the data."""
        manifest = self.data.manifest
        return {
            "fingerprint": manifest.fingerprint,
            "split": manifest.split,
            "seed": manifest.seed,
            "train_jokes": manifest.train,
            "test_jokes": manifest.test,
        }


def begin_run(data: PreparedData, out: Path, config: TrainingConfig) -> Run:
    """Set up an empty folder for a run and record its settings and data there.

    The remains of a run that died before its first checkpoint are removed.

    Raises:
        ModelFolderError: If the folder contains anything but a run without a checkpoint.
        TemplateError: If there is no such template, or it cannot be used with these settings.
    """
    run = Run(data, out, config)
    _ = run.template  # raises before anything is written
    if out.exists() and not out.is_dir():
        raise ModelFolderError(f"{out} is a file; name a folder for the model")
    if latest_checkpoint(run.checkpoints):
        raise ModelFolderError(
            f"{out} contains an unfinished training run: continue it with --resume, "
            "or remove the folder"
        )
    path = run.checkpoints / _RECORD
    remains = {run.checkpoints, run.logs} if path.is_file() else {run.checkpoints}
    if out.is_dir() and not remains.issuperset(out.iterdir()):
        raise ModelFolderError(f"{out} is not empty: name another folder or remove it")
    shutil.rmtree(run.logs, ignore_errors=True)
    run.checkpoints.mkdir(parents=True, exist_ok=True)
    record = {"config": asdict(config), "data": data.manifest.fingerprint}
    path.write_text(json.dumps(record, indent=2), encoding="utf-8")
    return run


def resume_run(data: PreparedData, out: Path, config: TrainingConfig) -> Run:
    """Resume a run with the settings it started with.

    Args:
        data: The prepared folder; must be the same.
        out: The folder of the unfinished run.
        config: The requested settings; must be the same, or all left at their defaults.

    Raises:
        InputError: If there is no unfinished run, or its data or settings differ.
    """
    path = out / CHECKPOINTS / _RECORD
    if not path.is_file():
        raise InputError(f"there is no unfinished training run in {out} to resume")
    record = read_config_file(path)
    if record["data"] != data.manifest.fingerprint:
        raise DataError(
            f"the run in {out} started with other data than {data.path}; pass that with --data"
        )
    saved = make_record(TrainingConfig, record["config"], path)
    if config not in (saved, TrainingConfig()):
        raise ConfigError(f"--resume uses the settings saved in {path}; leave out other options")
    return Run(data, out, saved)
