"""The model folder, which training writes and serving reads.

    config.json, model.safetensors, tokenizer.json, …   Hugging Face's files
    openvino/                                           int8 graph for serving (`joker export`)
    joker.json                                          the manifest
    README.md                                           the model card
    picked_jokes.jsonl                                  its jokes that readers picked, if any

Folders with another format version or a missing file are rejected.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import AllowInfNan, Field, TypeAdapter

from joker.core.errors import ModelFolderError, first_line
from joker.core.joke import GeneratedJoke
from joker.core.record import read_json, record, write_json
from joker.core.template import Template

FORMAT_VERSION = 1
MANIFEST = "joker.json"
OPENVINO = "openvino"
CARD = "README.md"
PICKED_JOKES = "picked_jokes.jsonl"
BUNDLED = Path(__file__).parents[1] / "models" / "bundled"
"""The folder of the model that comes with the package."""

_PICKED_JOKE = TypeAdapter(GeneratedJoke)
_REQUIRED = ("config.json", "tokenizer.json", "tokenizer_config.json", MANIFEST)
_OPENVINO_FILES = ("openvino_model.xml", "openvino_model.bin")
_LICENSE = re.compile(r"---\n(?:(?!---$).*\n)*?license: *(\S+)$", re.MULTILINE)


@record(ModelFolderError)
class Manifest:
    """What ``joker.json`` says.

    Attributes:
        base_model: Hub name, folder or GGUF file it started from, or ``new:SIZE``.
        context_length: Maximum number of tokens of a joke, start and end included.
        data: Fingerprint, split kind, seed and counts of the prepared folder.
        packages: Versions of the packages that trained it.
        earlier: The ``training`` of the model folders it started from, oldest first.
    """

    format_version: int = Field(default=FORMAT_VERSION, kw_only=True)
    template: Template
    base_model: str
    context_length: int
    data: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, Annotated[float, AllowInfNan()]] = field(default_factory=dict)
    earlier: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A checked model folder and its manifest."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: Path) -> ModelFolder:
        """Read and check a model folder, or raise a `ModelFolderError`."""
        if not path.is_dir():
            raise ModelFolderError(f"there is no model folder at {path}")
        if missing := [name for name in _REQUIRED if not (path / name).is_file()]:
            raise ModelFolderError(
                f"{path} is not a complete model folder: {missing[0]} is missing; "
                "make one with 'joker train'"
            )
        manifest = read_json(
            Manifest,
            path / MANIFEST,
            ModelFolderError,
            remedy="train or export the model again with this version",
        )
        folder = cls(path, manifest)
        if not folder.has_weights and not folder.has_openvino:
            raise ModelFolderError(f"{path} has neither model.safetensors nor an OpenVINO graph")
        return folder

    def read_picked_jokes(self) -> list[GeneratedJoke]:
        """Return the model's jokes that readers picked, if any, or raise a `ModelFolderError`."""
        path = self.path / PICKED_JOKES
        if not path.exists():
            return []
        try:
            lines = path.read_text("utf-8").splitlines()
            return [_PICKED_JOKE.validate_json(line) for line in lines]
        except (OSError, ValueError) as error:
            raise ModelFolderError(f"cannot read {path}: {first_line(error)}") from error

    def read_license(self) -> str | None:
        """Return the license in the model card's header, such as ``apache-2.0``, if it has one."""
        try:
            card = (self.path / CARD).read_text(encoding="utf-8")
        except (OSError, ValueError):
            return None
        match = _LICENSE.match(card)
        return match[1] if match else None

    @property
    def weights_bytes(self) -> int:
        """Size of the weights in bytes: the OpenVINO graph's, or PyTorch's if there is no graph."""
        graph = [self.openvino / _OPENVINO_FILES[1]]
        files = graph if self.has_openvino else self.path.glob("model*.safetensors")
        return sum(file.stat().st_size for file in files)

    @property
    def has_weights(self) -> bool:
        """Whether the folder has PyTorch weights."""
        return any(self.path.glob("model*.safetensors"))

    @property
    def openvino(self) -> Path:
        """Where the OpenVINO graph is or would be."""
        return self.path / OPENVINO

    @property
    def has_openvino(self) -> bool:
        """Whether the folder has an OpenVINO graph."""
        return all((self.openvino / name).is_file() for name in _OPENVINO_FILES)


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write ``joker.json`` into a folder atomically."""
    write_json(path / MANIFEST, manifest)


def bundled_model() -> Path:
    """Return the folder of the model that comes with the package, or raise a `ModelFolderError`."""
    if not BUNDLED.is_dir():
        raise ModelFolderError(
            "this copy of the package has no bundled model; pass a model folder with --model "
            "(JOKER_MODEL), or make one with 'joker train'"
        )
    return BUNDLED
