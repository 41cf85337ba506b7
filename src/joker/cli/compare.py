"""``joker compare``: train every template with the same settings and name the best."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Column, Table

from joker.cli.options import with_options
from joker.cli.train import ConfigOption, DataOption
from joker.core.parts import require_training
from joker.core.template import TEMPLATES
from joker.training.config import TrainingConfig, training_config

_COLUMNS = {
    "validation_bits_per_byte": "validation bits/byte",
    "bits_per_byte": "test bits/byte",
    "answer_bits_per_byte": "answer",
    "punchline_retrieval_accuracy": "retrieval",
    "legacy_perplexity": "legacy perplexity",
}


@with_options(TrainingConfig, skip=frozenset({"template", "markers"}))
def compare(
    given: dict[str, Any],
    data: DataOption,
    out: Annotated[Path, typer.Option("--out", help="Folder for the models, one subfolder each.")],
    config: ConfigOption = None,
    template: Annotated[
        list[str] | None,
        typer.Option("--template", help="Template to compare; repeatable. By default all three."),
    ] = None,
    markers: Annotated[
        Literal["own", "special", "plain", "both"],
        typer.Option("--markers", help="Markers: each template's own, special, plain, or both."),
    ] = "own",
) -> None:
    """Train one model per template with the same base and settings, and compare them.

    Run the same command again to continue an interrupted comparison.
    """
    require_training()
    from joker.data.prepared import PreparedData
    from joker.training.compare import compare as run_comparison
    from joker.training.compare import templates

    settings = training_config(given, config)
    kinds = {"own": [], "special": ["special"], "plain": ["plain"], "both": ["special", "plain"]}
    chosen = templates(template or list(TEMPLATES), kinds[markers])  # type: ignore[arg-type]
    result = run_comparison(PreparedData.open(data), out, settings, chosen)
    table = Table(Column("template", no_wrap=True), *_COLUMNS.values())
    for label, metrics in result.metrics.items():
        style = "bold" if label == result.winner else None
        cells = [f"{metrics[key]:.3f}" if key in metrics else "–" for key in _COLUMNS]
        table.add_row(label, *cells, style=style)
    console = Console()
    console.print(table)
    console.print(
        f"Best on validation jokes: {result.winner} in {result.folders[result.winner].path}"
    )
