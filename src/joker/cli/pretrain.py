"""``joker pretrain``: train a small GPT-2 from scratch on texts and jokes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from joker.cli.options import with_options
from joker.cli.parts import require_training
from joker.cli.train import ConfigOption
from joker.core.config import make_config, read_config_file
from joker.training.pretraining_config import PretrainingConfig


@with_options(PretrainingConfig)
def pretrain(
    text: Annotated[
        Path,
        typer.Option(help="Folder of .jsonl or .txt files, also compressed with xz or gzip."),
    ],
    jokes: Annotated[Path, typer.Option(help="Folder made by 'joker data prepare'.")],
    out: Annotated[Path, typer.Option("--out", help="Model folder to make.")],
    tokens: Annotated[
        Path | None,
        typer.Option(help="Folder that keeps tokenizer and tokens for further runs."),
    ] = None,
    config: ConfigOption = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")
    ] = False,
    given: dict[str, Any] | None = None,
) -> None:
    """Train a small GPT-2 and its tokenizer from scratch on texts and jokes.

    Whatever holds a joke of the test split is left out of the texts. 'joker train --base' goes on
    from the model folder. Every run is recorded in MLflow, as by 'joker train'.
    """
    require_training()
    from joker.data.prepared import PreparedData
    from joker.training.pretraining import pretrain as run_pretraining

    settings = make_config(
        PretrainingConfig, read_config_file(config) if config else {}, given or {}
    )
    folder = run_pretraining(
        text,
        PreparedData.open(jokes),
        out,
        settings,
        tokens=tokens,
        resume=resume,
        report=lambda line: typer.echo(line, err=True),
    )
    if folder is None:
        return
    typer.echo(f"{folder.path}")
    for name, value in folder.manifest.metrics.items():
        typer.echo(f"{name} {value:.4g}")
