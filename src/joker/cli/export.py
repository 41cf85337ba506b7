"""``joker export``: add the graph that serves a model without PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from joker.core.model_folder import ModelFolder


def export(
    model: Annotated[Path, typer.Argument(help="Model folder with PyTorch weights.")],
    int4_ratio: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Share of the weights to round to 4 bits, those that suffer least first; "
            "the others are rounded to 8.",
        ),
    ] = 0.0,
    calibration: Annotated[
        Path | None,
        typer.Option(help="CSV or JSONL file of jokes by which the rounding to 4 bits is chosen."),
    ] = None,
    drop_weights: Annotated[
        bool,
        typer.Option("--drop-weights", help="Delete the PyTorch weights; only the graph is left."),
    ] = False,
) -> None:
    """Add a compressed OpenVINO graph to a model folder and check it against the weights."""
    from joker.training.export import export_openvino
    from joker.training.filtering import read_jokes

    folder = ModelFolder.open(model)
    jokes = [joke for joke, _ in read_jokes(calibration)] if calibration else []
    check = export_openvino(folder, int4_ratio=int4_ratio, calibration=jokes)
    if drop_weights:
        for file in folder.path.glob("model*.safetensors*"):
            file.unlink()
    typer.echo(f"{folder.openvino}")
    typer.echo(f"mean_kl_nats_per_token {check.mean_kl:.4g}")
    typer.echo(f"top_token_agreement {check.agreement:.4g}")
    typer.echo(f"positions {check.positions}")
