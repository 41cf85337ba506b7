"""Average the weights of two model folders with the same vocabulary.

    python tools/average_weights.py puns people joker --share 0.7 --drop-critic

Models on the line between a model and its fine-tune often keep what both can do
(Wortsman et al., 2022, "Robust fine-tuning of zero-shot models"). The new folder has the second
one's tokenizer, fingerprints and record of trainings, and the weighted mean of both weights.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from joker.core.errors import InputError, JokerError, ModelFolderError
from joker.core.model_folder import MANIFEST, OPENVINO, ModelFolder, write_manifest
from joker.core.tokenizer import FAILS, WORKS
from joker.training.base_model import earlier_trainings
from joker.training.hub import write_card

WEIGHTS = "model.safetensors"
TOKENIZER_CONFIG = "tokenizer_config.json"
EXTRA_TOKENS = "extra_special_tokens"


def average(
    first: Path, second: Path, out: Path, share: float = 0.5, *, drop_critic: bool = False
) -> None:
    """Write the model folder between two others.

    Args:
        first: A model folder.
        second: One with the same vocabulary, fine-tuned from the first or from the same base.
        out: The folder to write.
        share: The second one's share in the mean, from 0 to 1.
        drop_critic: Leave the critic's tokens out of the vocabulary, so that it ranks no drafts.

    Raises:
        InputError: If the share is not from 0 to 1.
        ModelFolderError: If one of the two is not a model folder with weights in a single file,
            their weights differ in name or shape, their vocabularies differ, or ``out`` exists.
    """
    if not 0 <= share <= 1:
        raise InputError(f"the share must be from 0 to 1, not {share:g}")
    if out.exists():
        raise ModelFolderError(f"{out} exists; name another folder")
    left, right = _read_weights(first), _read_weights(second)
    shapes = [{name: value.shape for name, value in each.items()} for each in (left, right)]
    if shapes[0] != shapes[1]:
        raise ModelFolderError(
            f"the weights of {first} and {second} differ in name or shape; "
            "average a model with its own fine-tune"
        )
    if _read_vocabulary(first) != _read_vocabulary(second):
        raise ModelFolderError(
            f"the vocabularies of {first} and {second} differ, so their rows belong to different "
            "tokens; average a model with its own fine-tune"
        )
    shutil.copytree(second, out, ignore=shutil.ignore_patterns(WEIGHTS, OPENVINO, MANIFEST))
    if drop_critic:
        _drop_critic(out)
    mean = {name: torch.lerp(left[name], right[name], share) for name in left}
    save_file(mean, out / WEIGHTS, metadata={"format": "pt"})
    manifest = replace(
        ModelFolder.open(second).manifest,
        training={"average_of": [first.name, second.name], "share_of_second": share},
        metrics={},
        earlier=earlier_trainings(str(second)),
    )
    write_card(out, manifest)
    write_manifest(out, manifest)


def _drop_critic(folder: Path) -> None:
    for name, key in (("tokenizer.json", "added_tokens"), (TOKENIZER_CONFIG, EXTRA_TOKENS)):
        path = folder / name
        fields = json.loads(path.read_text(encoding="utf-8"))
        kept = [
            token
            for token in fields.get(key, [])
            if (token if isinstance(token, str) else token["content"]) not in (WORKS, FAILS)
        ]
        text = json.dumps(fields | {key: kept}, indent=2, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")


def _read_vocabulary(path: Path) -> dict[str, int]:
    vocabulary: dict[str, int] = Tokenizer.from_file(str(path / "tokenizer.json")).get_vocab()
    return vocabulary


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    ModelFolder.open(path)
    if not (path / WEIGHTS).is_file():
        raise ModelFolderError(f"{path} has no {WEIGHTS}; average before dropping the weights")
    return load_file(path / WEIGHTS)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name in ("first", "second", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--share", type=float, default=0.5, help="share of the second model")
    parser.add_argument("--drop-critic", action="store_true", help="leave the critic out")
    options = parser.parse_args()
    try:
        average(
            options.first,
            options.second,
            options.out,
            options.share,
            drop_critic=options.drop_critic,
        )
    except JokerError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
