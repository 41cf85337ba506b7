"""Stages: the trainings that make a model, one after another, told by one file.

    stages:
      - pretrain: {size: small, budget: 24M, safe: true}
      - train: {epochs: 2, safe: true}

Each stage starts from the model of the one before; the first ``pretrain`` starts from
random weights and a first ``train`` from the base it names. Every stage leaves a model
folder of its own, and the corpora of tokens stay beside them. A folder that is there is
not made again, and a stage that was cut short goes on, so the same call finishes what it
began.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from joker.core.config import make_config, read_config_file
from joker.core.errors import ConfigError, DataError, StoppedError
from joker.core.model_folder import MANIFEST, ModelFolder
from joker.data.prepared import PreparedData
from joker.training.base import new_shape, require_multiple
from joker.training.callbacks import latest_checkpoint
from joker.training.config import TrainingConfig, training_config
from joker.training.corpus import JOKES
from joker.training.finetune import finetune
from joker.training.pretraining import pretrain
from joker.training.pretraining_config import PretrainingConfig
from joker.training.run import CHECKPOINTS

_KEY = "stages"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Stage:
    """One training of several.

    Attributes:
        name: Its number and its verb, such as ``1-pretrain``; its folder is called so.
        config: Its settings; the base of any but the first is the stage before.
    """

    name: str
    config: PretrainingConfig | TrainingConfig


def read_stages(path: Path) -> list[Stage]:
    """Read the stages of a file.

    Raises:
        ConfigError: If the file cannot be read, or a stage has no such settings or cannot follow
            the one before; it is named.
        ModelFolderError: If the first is to make a model of a size that there is not.
    """
    content = read_config_file(path)
    stages = content.get(_KEY)
    if set(content) != {_KEY} or not isinstance(stages, list) or not stages:
        raise ConfigError(f"{path} must hold nothing but {_KEY!r}, a list of trainings")
    read = [_read_stage(number, stage) for number, stage in enumerate(stages, 1)]
    _require_growth([stage.config for stage in read])
    return read


def build(
    stages: list[Stage],
    texts: Path,
    data: PreparedData,
    out: Path,
    report: Callable[[str], None] = logger.info,
) -> ModelFolder:
    """Train stage after stage and return the last one's model folder.

    Args:
        stages: What to train.
        texts: Folder of texts that pretraining reads.
        data: Prepared jokes.
        out: Folder for a model folder of each stage.
        report: Gets a line now and then.

    Raises:
        InputError: If texts, data, settings or a folder cannot be used.
        StoppedError: If a signal ended a training early; a checkpoint is there.
        ResourceError: If memory or disk ran out.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("stages run in one process; give torchrun one training at a time")
    base = ""
    tokens: dict[object, Path] = {}
    for stage in stages:
        folder = out / stage.name
        config = replace(stage.config, base=base) if base else stage.config
        if isinstance(config, PretrainingConfig):
            # Stages that read the same of the texts share one corpus.
            kept = tokens.setdefault(_corpus_of(config), out / f"{stage.name}-tokens")
        if (folder / MANIFEST).is_file():
            _require_same(ModelFolder.open(folder), config, data)
            report(f"{stage.name}: there already")
        else:
            report(f"{stage.name}: begins")
            resume = latest_checkpoint(folder / CHECKPOINTS) is not None
            try:
                if isinstance(config, PretrainingConfig):
                    pretrain(texts, data, folder, config, tokens=kept, resume=resume, report=report)
                else:
                    finetune(data, folder, config, resume=resume)
            except StoppedError as error:
                raise StoppedError(f"{error}, and so does the same 'joker build'") from error
        base = str(folder)
    return ModelFolder.open(folder)


def _read_stage(number: int, stage: Any) -> Stage:
    if not isinstance(stage, Mapping) or len(stage) != 1:
        raise ConfigError(f"stage {number} must be written like 'pretrain: {{setting: value}}'")
    ((verb, settings),) = stage.items()
    if verb not in ("pretrain", "train") or not isinstance(settings, Mapping):
        raise ConfigError(
            f"stage {number} must be 'pretrain' or 'train' with settings, not {verb!r}"
        )
    if number > 1 and "base" in settings:
        raise ConfigError(f"stage {number} starts from the one before; leave its 'base' out")
    with _naming(number):
        config: PretrainingConfig | TrainingConfig = (
            make_config(PretrainingConfig, settings)
            if verb == "pretrain"
            else training_config(settings)
        )
    return Stage(f"{number}-{verb}", config)


@contextmanager
def _naming(number: int) -> Iterator[None]:
    """Say of a refused setting in which stage it stands."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"stage {number}: {error}") from error


def _require_growth(configs: list[PretrainingConfig | TrainingConfig]) -> None:
    """Refuse depths that stacked blocks cannot reach, before the first stage takes its hours."""
    first = configs[0]
    blocks = 0  # of a base that is named nobody knows before it is opened
    if isinstance(first, PretrainingConfig):
        blocks = first.layers or (0 if first.base else new_shape(first.size)["n_layer"])
    for number, config in enumerate(configs[1:], 2):
        if not isinstance(config, PretrainingConfig) or not config.layers:
            continue
        if blocks:
            with _naming(number):
                require_multiple(config.layers, blocks)
        blocks = config.layers


def _corpus_of(config: PretrainingConfig) -> object:
    """Return what decides a corpus; of the budget and the mixtures only what is kept of texts."""
    kept = {source: n for source, n in (config.tokens_kept or {}).items() if source != JOKES}
    names = ("template", "markers", "posts", "leave_out", "safe", "distinct")
    return (*(getattr(config, name) for name in names), *sorted(kept.items()))


def _require_same(
    folder: ModelFolder, config: PretrainingConfig | TrainingConfig, data: PreparedData
) -> None:
    """Refuse a stage's folder that other settings or jokes made."""
    if folder.manifest.data.get("fingerprint") != data.manifest.fingerprint:
        raise DataError(
            f"{folder.path} was made with other jokes than {data.path}; remove it or name another "
            "--out"
        )
    # A setting that came to be after the folder was made had what is now its default.
    made_with = type(config)().to_dict() | folder.manifest.training
    for name, value in config.to_dict().items():
        if name != "base" and made_with[name] != value:
            raise ConfigError(
                f"{folder.path} was made with {name} {made_with[name]!r}, but the stage says "
                f"{value!r}; remove that folder and those after it, or name another --out"
            )
