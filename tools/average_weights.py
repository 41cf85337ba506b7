"""Average the weights of two model folders, one of which was fine-tuned from the other.

    python tools/average_weights.py puns people joker

Between a model and its fine-tune lies a straight line of models that often keep what both can do
(Wortsman et al., 2022, "Robust fine-tuning of zero-shot models"). The new folder has the second
one's tokenizer, fingerprints and record of trainings, and the mean of both weights.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from joker.core.model_folder import ModelFolder, write_manifest

WEIGHTS = "model.safetensors"


def average(first: Path, second: Path, out: Path) -> None:
    """Write the model folder between two others.

    Raises:
        ValueError: If the two do not have the same weights by name and shape.
    """
    left, right = load_file(first / WEIGHTS), load_file(second / WEIGHTS)
    shapes = [{name: value.shape for name, value in each.items()} for each in (left, right)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"{first} and {second} are models of different shapes")
    manifest = ModelFolder.open(second).manifest
    shutil.copytree(second, out, ignore=shutil.ignore_patterns(WEIGHTS, "openvino", "joker.json"))
    mean = {name: torch.lerp(left[name], right[name], 0.5) for name in left}
    save_file(mean, out / WEIGHTS, metadata={"format": "pt"})
    training = {"average_of": [first.name, second.name]}
    earlier = [*manifest.earlier, manifest.training]
    write_manifest(out, replace(manifest, training=training, metrics={}, earlier=earlier))


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name in ("first", "second", "out"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    average(options.first, options.second, options.out)


if __name__ == "__main__":
    main()
