"""``joker build``: train a model stage by stage, as one file says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from joker.cli.export import report_export
from joker.cli.parts import require_training


def build(
    stages: Annotated[Path, typer.Argument(help="YAML or JSON file of stages.")],
    text: Annotated[Path, typer.Option(help="Folder of texts, as 'joker pretrain' reads it.")],
    jokes: Annotated[Path, typer.Option(help="Folder made by 'joker data prepare'.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for a model folder of each stage.")],
) -> None:
    """Train a model stage by stage, as one file says, and add its int8 graph.

    Each stage is a 'pretrain' or a 'train' that starts from the one before. Called again, it goes
    on where it was cut short. configs/bundled.yaml made the model that comes with the package.
    """
    require_training()
    from joker.data.prepared import PreparedData
    from joker.training.stages import build as run_stages
    from joker.training.stages import read_stages

    folder = run_stages(
        read_stages(stages),
        text,
        PreparedData.open(jokes),
        out,
        report=lambda line: typer.echo(line, err=True),
    )
    report_export(folder)
