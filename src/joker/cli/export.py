"""``joker export``: add the OpenVINO graph that serves a model without PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from joker.core.model_folder import ModelFolder
from joker.core.parts import require_training


def export(
    model: Annotated[Path, typer.Argument(help="Model folder with PyTorch weights.")],
    int4_ratio: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Share of the weights to round to 4 bits, starting with those that lose least; "
            "the others are rounded to 8.",
        ),
    ] = 0.0,
    calibration: Annotated[
        Path | None,
        typer.Option(help="CSV or JSONL file of jokes to calibrate the rounding to 4 bits with."),
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

    With --push, a folder that has only a graph is uploaded as it is; other options do nothing.
    """
    require_training()
    from joker.training.export import drop_weights, export_openvino, push_to_hub
    from joker.training.filtering import read_jokes

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
