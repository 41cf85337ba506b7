"""``joker export``: add the graph that serves a model without PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from joker.core.model_folder import ModelFolder


def export(
    model: Annotated[Path, typer.Argument(help="Model folder with PyTorch weights.")],
) -> None:
    """Add an int8 OpenVINO graph to a model folder and check that it agrees with the weights."""
    from joker.training.export import export_openvino

    folder = ModelFolder.open(model)
    check = export_openvino(folder)
    typer.echo(f"{folder.openvino}")
    typer.echo(f"mean_kl_nats_per_token {check.mean_kl:.4g}")
    typer.echo(f"top_token_agreement {check.agreement:.4g}")
    typer.echo(f"positions {check.positions}")
