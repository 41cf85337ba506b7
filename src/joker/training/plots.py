"""Pictures for MLflow and for people: how a loss fell, how templates compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt


def loss_curve(history: Sequence[Mapping[str, float]], path: Path) -> Path:
    """Draw loss and answer loss over optimizer steps into a PNG and return its path.

    Args:
        history: The Trainer's reports, each with ``step`` and perhaps losses in nats per token.
        path: Where to write.
    """
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for key, label in (("loss", "all tokens"), ("answer_loss", "answers")):
        points = [(entry["step"], entry[key]) for entry in history if key in entry]
        if points:
            axes.plot(*zip(*points, strict=True), label=label)
    axes.set(xlabel="optimizer step", ylabel="training loss (nats per token)")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path


def comparison(metrics: Mapping[str, Mapping[str, float]], path: Path) -> Path:
    """Draw each template's bits per byte beside its legacy perplexity, and return the PNG's path.

    Args:
        metrics: Figures by template; ``bits_per_byte`` must be among them.
        path: Where to write.
    """
    labels = list(metrics)
    figure, panes = plt.subplots(1, 2, figsize=(10, 0.5 * len(labels) + 2), layout="constrained")
    shown = (
        ("bits_per_byte", "bits per byte (compares fairly)"),
        ("legacy_perplexity", "legacy perplexity (does not)"),
    )
    for pane, (key, title) in zip(panes, shown, strict=True):
        bars = pane.barh(labels, [metrics[label].get(key, 0.0) for label in labels])
        pane.bar_label(bars, fmt="%.3f", padding=3)
        pane.set_title(title)
        pane.invert_yaxis()
        pane.margins(x=0.3)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path
