"""The model folder: the one thing that training writes and serving reads.

    config.json, model.safetensors, tokenizer.json, …   Hugging Face's files
    openvino/                                           int8 graph for serving (`joker export`)
    joker.json                                          the manifest, read and written here
    README.md                                           the model card

Serving needs no option that the folder already knows. A folder of another format
version, or with a file missing, is refused by name.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from joker.core.errors import ModelFolderError
from joker.core.template import Template

FORMAT_VERSION = 1
MANIFEST = "joker.json"
OPENVINO = "openvino"
CARD = "README.md"
BUNDLED = Path(__file__).parents[1] / "models" / "bundled"
"""Where the model lies that comes with the package."""

_REQUIRED = ("config.json", "tokenizer.json", "tokenizer_config.json", MANIFEST)
_OPENVINO_FILES = ("openvino_model.xml", "openvino_model.bin")


@dataclass(frozen=True, slots=True)
class Manifest:
    """What ``joker.json`` says.

    Attributes:
        template: The template the model was trained with.
        base_model: Hub name, folder or GGUF file it started from, or ``new:SIZE``.
        context_length: Most tokens a joke may have, start and end token included.
        data: Fingerprint, split kind, seed and counts of the prepared folder.
        training: The resolved training configuration.
        packages: Versions of the packages that trained it.
        metrics: Figures measured at the end of training.
        earlier: The ``training`` of the model folders it started from, the first one first.
    """

    template: Template
    base_model: str
    context_length: int
    data: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    earlier: list[dict[str, Any]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object that `from_dict` reads back."""
        return {
            "format_version": FORMAT_VERSION,
            "template": self.template.to_dict(),
            "base_model": self.base_model,
            "context_length": self.context_length,
            "data": self.data,
            "training": self.training,
            "packages": self.packages,
            "metrics": self.metrics,
            "earlier": self.earlier,
        }

    @classmethod
    def from_dict(cls, fields: Any, source: str) -> Manifest:
        """Build a manifest from parsed JSON; ``source`` is named in errors."""
        if not isinstance(fields, dict):
            raise ModelFolderError(f"{source} is not a model manifest")
        version = fields.get("format_version")
        if version != FORMAT_VERSION:
            raise ModelFolderError(
                f"{source} has format version {version!r}, this package reads {FORMAT_VERSION}; "
                "train or export the model again with this version"
            )
        try:
            return cls(
                template=Template.from_dict(fields["template"], source=source),
                base_model=str(fields["base_model"]),
                context_length=int(fields["context_length"]),
                data=dict(fields["data"]),
                training=dict(fields["training"]),
                packages=dict(fields["packages"]),
                metrics=dict(fields["metrics"]),
                earlier=[dict(training) for training in fields.get("earlier", ())],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ModelFolderError(f"{source} lacks or garbles {error}") from error


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A checked model folder.

    Attributes:
        path: The directory.
        manifest: What its ``joker.json`` says.
    """

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: Path) -> ModelFolder:
        """Read and check a model folder.

        Raises:
            ModelFolderError: If it is no folder, a file is missing, or the format is another.
        """
        if not path.is_dir():
            raise ModelFolderError(f"there is no model folder at {path}")
        if missing := [name for name in _REQUIRED if not (path / name).is_file()]:
            raise ModelFolderError(
                f"{path} is not a complete model folder: {missing[0]} is missing; "
                "make one with 'joker train'"
            )
        source = path / MANIFEST
        try:
            fields = json.loads(source.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelFolderError(f"cannot read {source}: {error}") from error
        folder = cls(path, Manifest.from_dict(fields, str(source)))
        if not folder.has_weights and not folder.has_openvino:
            raise ModelFolderError(f"{path} holds neither model.safetensors nor an OpenVINO graph")
        return folder

    @property
    def has_weights(self) -> bool:
        """Whether PyTorch weights are there."""
        return any(self.path.glob("model*.safetensors"))

    @property
    def openvino(self) -> Path:
        """Where the OpenVINO graph lies or would lie."""
        return self.path / OPENVINO

    @property
    def has_openvino(self) -> bool:
        """Whether an OpenVINO graph is there."""
        return all((self.openvino / name).is_file() for name in _OPENVINO_FILES)


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write ``joker.json`` into a folder, whole or not at all."""
    target = path / MANIFEST
    partial = target.with_suffix(".json.partial")
    partial.write_text(json.dumps(manifest.to_dict(), indent=2, ensure_ascii=False) + "\n", "utf-8")
    partial.replace(target)


def bundled_model() -> Path:
    """Return the folder of the model that comes with the package.

    Raises:
        ModelFolderError: If this copy of the package comes without one.
    """
    if not BUNDLED.is_dir():
        raise ModelFolderError(
            "this copy of the package comes without a model; name a model folder with --model, "
            "or make one with 'joker train'"
        )
    return BUNDLED
