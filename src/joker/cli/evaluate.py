"""``joker evaluate``: measure a model on held-out jokes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from joker.cli.options import with_options
from joker.core.model_folder import ModelFolder
from joker.core.parts import require_training
from joker.evaluation.config import EvaluationConfig


@with_options(EvaluationConfig)
def evaluate(
    given: dict[str, Any],
    model: Annotated[Path, typer.Argument(help="Model folder.")],
    data: Annotated[
        Path,
        typer.Option(
            "--data",
            help="Prepared folder, or CSV file with the columns Question and Answer.",
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Measure how well a model predicts human jokes, and how good its own are.

    docs/metrics.md explains every metric.
    """
    require_training()
    config = EvaluationConfig(**given)
    folder = ModelFolder.open(model)
    from joker.compose import ensure_graph
    from joker.evaluation.evaluate import evaluate as measure
    from joker.evaluation.held_out import HeldOut

    held_out = HeldOut.open(data)
    with Console(stderr=True).status(f"Evaluating {model} on {held_out.facts['name']}"):
        teller = ensure_graph(folder) if config.generate else None
        report = measure(folder, held_out, config, teller)
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=2, ensure_ascii=False))
    else:
        Console().print(report.render())
