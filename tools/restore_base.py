"""Give a fine-tuned model folder the weights of its base again, in the folder's own vocabulary.

    python tools/restore_base.py puns SmolLM2-135M-Instruct.Q4_1.gguf restored

A model that is trained from the new folder can be averaged with the first one, which a model
trained from the base itself cannot: it chooses a vocabulary of its own. Tokens that the base does
not have, such as a template's markers, keep the rows that the first folder learned.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from joker.core.errors import JokerError, ModelFolderError
from joker.core.model_folder import MANIFEST, OPENVINO, ModelFolder, write_manifest
from joker.training.base_model import load_pretrained

WEIGHTS = "model.safetensors"


def restore(path: Path, base: str, out: Path) -> None:
    """Write a model folder with the weights of a base.

    Args:
        path: The fine-tuned model folder.
        base: Folder, GGUF file or hub name of what it was fine-tuned from.
        out: The folder to write.

    Raises:
        ModelFolderError: If the two are not of one architecture, or ``out`` exists.
    """
    if out.exists():
        raise ModelFolderError(f"{out} exists; name another folder")
    folder = ModelFolder.open(path)
    tuned = load_file(path / WEIGHTS)
    tokenizer, model = load_pretrained(str(path))
    base_tokenizer, base_model = load_pretrained(base)
    own, theirs = tokenizer.get_vocab(), base_tokenizer.get_vocab()
    shared = [(own[token], theirs[token]) for token in own.keys() & theirs.keys()]
    to, origin = (torch.tensor(ids) for ids in zip(*shared, strict=True))
    restored = {}
    weights = base_model.state_dict()
    vocabulary = model.config.vocab_size
    for name, value in tuned.items():
        new = weights.get(name)
        if new is None or new.shape[1:] != value.shape[1:]:
            raise ModelFolderError(f"{path} and {base} differ in {name}; name its own base")
        if len(value) == vocabulary and new.shape != value.shape:
            restored[name] = value.clone()
            restored[name][to] = new[origin].to(value.dtype)
        else:
            restored[name] = new.to(value.dtype).contiguous().clone()
    shutil.copytree(path, out, ignore=shutil.ignore_patterns(WEIGHTS, OPENVINO, MANIFEST))
    save_file(restored, out / WEIGHTS, metadata={"format": "pt"})
    training = {"weights_of": Path(base).name, "vocabulary_of": path.name}
    write_manifest(out, replace(folder.manifest, training=training, metrics={}))


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", type=Path, help="fine-tuned model folder")
    parser.add_argument("base", help="folder, GGUF file or hub name of its base")
    parser.add_argument("out", type=Path, help="folder to write")
    options = parser.parse_args()
    try:
        restore(options.model, options.base, options.out)
    except JokerError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
