"""``joker train``, ``compare``, ``evaluate`` and ``export``, which need the extra ``train``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Column, Table

from joker.cli.options import with_options
from joker.core.errors import require_training
from joker.core.model_folder import ModelFolder
from joker.core.template import TEMPLATES
from joker.evaluation import EvaluationConfig
from joker.training.config import TrainingConfig, training_config

_Prepared = Annotated[Path, typer.Option("--data", help="Folder created by 'joker data prepare'.")]
_Settings = Annotated[
    Path | None,
    typer.Option("--config", help="YAML or JSON file of settings; options override it."),
]

_COLUMNS = {
    "validation_bits_per_byte": "validation bits/byte",
    "bits_per_byte": "test bits/byte",
    "answer_bits_per_byte": "answer",
    "punchline_retrieval_accuracy": "retrieval",
    "legacy_perplexity": "legacy perplexity",
}


@with_options(TrainingConfig)
def train(
    overrides: dict[str, Any],
    data: _Prepared,
    out: Annotated[Path, typer.Option("--out", help="Model folder to create.")],
    config: _Settings = None,
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

    settings = training_config(overrides, config)
    prepared = PreparedData.open(data)
    if settings.recipe == "original" and prepared.manifest.split != "random":
        Console(stderr=True).print(
            "The original's recipe uses a random split; this folder is split by "
            f"{prepared.manifest.split}, so the metrics will not show its leak."
        )
    from joker.training.finetune import finetune  # slow, so errors in the settings come first

    folder = finetune(prepared, out, settings, resume=resume)
    if folder is None:
        return
    typer.echo(f"{folder.path}")
    for name, value in folder.manifest.metrics.items():
        typer.echo(f"{name} {value:.4g}")


@with_options(TrainingConfig, skip=frozenset({"template", "markers"}))
def compare(
    overrides: dict[str, Any],
    data: _Prepared,
    out: Annotated[Path, typer.Option("--out", help="Folder for the models, one subfolder each.")],
    config: _Settings = None,
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

    settings = training_config(overrides, config)
    prepared = PreparedData.open(data)
    from joker.training.compare import compare as run_comparison
    from joker.training.compare import load_templates

    kinds = {"own": [], "special": ["special"], "plain": ["plain"], "both": ["special", "plain"]}
    chosen = load_templates(template or list(TEMPLATES), kinds[markers])  # type: ignore[arg-type]
    result = run_comparison(prepared, out, settings, chosen)
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


@with_options(EvaluationConfig)
def evaluate(
    overrides: dict[str, Any],
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
    config = EvaluationConfig(**overrides)
    folder = ModelFolder.open(model)
    from joker.evaluation.held_out import HeldOut

    held_out = HeldOut.open(data)
    from joker.compose import ensure_graph
    from joker.evaluation.evaluate import evaluate as measure

    with Console(stderr=True).status(f"Evaluating {model} on {held_out.facts['name']}"):
        generator = ensure_graph(folder) if config.generate else None
        report = measure(folder, held_out, config, generator)
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=2, ensure_ascii=False))
    else:
        Console().print(report.render())


def export(
    model: Annotated[Path, typer.Argument(help="Model folder with PyTorch weights.")],
    int4_ratio: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Fraction of the weights to compress to 4 bits, least sensitive first; the rest "
            "use 8.",
        ),
    ] = 0.0,
    calibration: Annotated[
        Path | None,
        typer.Option(help="CSV or JSONL file of jokes to calibrate the 4-bit quantization with."),
    ] = None,
    graph_only: Annotated[
        bool,
        typer.Option("--drop-weights", help="Delete the PyTorch weights and keep only the graph."),
    ] = False,
    push: Annotated[
        str | None,
        typer.Option(
            metavar="USER/NAME",
            help="Upload the folder to this repository on the Hugging Face Hub.",
        ),
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="With --push: make a new repository private.")
    ] = False,
) -> None:
    """Add a compressed OpenVINO graph to a model folder and compare it with the weights.

    With --push, a folder without PyTorch weights is uploaded as is; other options are ignored.
    """
    require_training()
    from joker.training.export import export_openvino
    from joker.training.filtering import read_jokes
    from joker.training.hub import drop_weights, push_to_hub

    folder = ModelFolder.open(model)
    if folder.has_weights or not (push and folder.has_openvino):
        jokes = [joke for joke, _ in read_jokes(calibration)] if calibration else []
        check = export_openvino(folder, int4_ratio=int4_ratio, calibration=jokes)
        if graph_only:
            drop_weights(folder)
        typer.echo(f"{folder.openvino}")
        typer.echo(f"mean_kl_nats_per_token {check.mean_kl:.4g}")
        typer.echo(f"top_token_agreement {check.agreement:.4g}")
        typer.echo(f"positions {check.positions}")
    if push:
        typer.echo(push_to_hub(folder, push, private=private))
