"""``joker train``: fine-tune a model on a prepared folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from joker.cli.options import with_options
from joker.core.parts import require_training
from joker.training.config import TrainingConfig, training_config

DataOption = Annotated[Path, typer.Option("--data", help="Folder created by 'joker data prepare'.")]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="YAML or JSON file of settings; options override it."),
]


@with_options(TrainingConfig)
def train(
    given: dict[str, Any],
    data: DataOption,
    out: Annotated[Path, typer.Option("--out", help="Model folder to create.")],
    config: ConfigOption = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the last checkpoint in --out.")
    ] = False,
) -> None:
    """Fine-tune a causal LM on jokes and write a model folder.

    MLflow records every run: at MLFLOW_TRACKING_URI, or else in mlflow.db in the current folder;
    --report-to selects other trackers.
    """
    require_training()
    from joker.data.prepared import PreparedData
    from joker.training.finetune import finetune

    settings = training_config(given, config)
    prepared = PreparedData.open(data)
    if settings.recipe == "original" and prepared.manifest.split != "random":
        Console(stderr=True).print(
            "The original's recipe uses a random split; this folder is split by "
            f"{prepared.manifest.split}, so its metrics will not show the original's leak."
        )
    folder = finetune(prepared, out, settings, resume=resume)
    if folder is None:
        return
    typer.echo(f"{folder.path}")
    for name, value in folder.manifest.metrics.items():
        typer.echo(f"{name} {value:.4g}")
