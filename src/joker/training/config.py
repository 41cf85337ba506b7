"""How a model is trained: one configuration, and two recipes that fill it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from joker.core.errors import ConfigError
from joker.core.record import Seed, make_record, read_config_file, record
from joker.core.template import DEFAULT_TEMPLATE, MarkerKind

Recipe = Literal["joker", "original"]
Packing = Literal["jokes", "blocks"]
Precision = Literal["auto", "float32", "bfloat16"]
Compile = Literal["auto", "always", "never"]
Schedule = Literal["linear", "cosine", "constant"]
Weights = Literal["float32", "float16"]


@record(ConfigError)
class TrainingConfig:
    """A training run's settings; ``base`` decides the learning rate where none is given."""

    recipe: Recipe = Field(
        default="joker",
        description="Preset: ours, or the original system's.",
    )
    base: str = Field(
        default="distilgpt2",
        description="Base model: Hub name, folder, GGUF file, or new:SIZE (tiny, small, distil, "
        "gpt2).",
    )
    template: str = Field(
        default=DEFAULT_TEMPLATE, description="Template: original, separator, words, or a file."
    )
    markers: MarkerKind | None = Field(
        default=None,
        description="Markers as special tokens or plain text; by default the template's own.",
    )
    safe: bool = Field(
        default=False, description="Leave out training jokes that moderation flags as offensive."
    )
    dedup: bool = Field(
        default=False, description="Train on only one joke of each cluster of near-duplicates."
    )
    min_score: int = Field(
        default=0, ge=0, description="Skip clusters whose best post scores below this."
    )
    extra_jokes: str | None = Field(
        default=None,
        description="CSV or JSONL file of more jokes to train on; near-duplicates of test jokes "
        "are left out.",
    )
    punchline_first: bool = Field(
        default=False,
        description="Also train on jokes with the punchline first, and generate jokes that way.",
    )
    preferences: str | None = Field(
        default=None,
        description="CSV or JSONL file of rated jokes (question, answer, score): those with a "
        "score of 2 or more are added to the training jokes.",
    )
    critic: bool = Field(
        default=False,
        description="Also train a critic on all rated jokes of --preferences, good and bad; it "
        "then helps to rank drafts. It needs far more than 4,000 ratings to be of use.",
    )
    vocabulary_size: int | None = Field(
        default=None,
        ge=1,
        description="Reduce the base's vocabulary to this many entries, those used most in the "
        "jokes.",
    )
    keep_layers: int | None = Field(
        default=None,
        ge=2,
        description="Keep this many of the base's blocks, evenly spaced from the first to the "
        "last; by default all.",
    )
    freeze_layers: int = Field(
        default=0, ge=0, description="Number of the base's lowest blocks to freeze."
    )
    teacher: str | None = Field(
        default=None,
        description="Model folder to distill from; it needs PyTorch weights and the same template "
        "and vocabulary.",
    )
    distillation_weight: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="With a teacher: weight of the distillation loss; cross-entropy on the jokes "
        "gets the rest.",
    )
    epochs: float = Field(default=3.0, gt=0, description="Passes over the training jokes.")
    max_steps: int = Field(
        default=0,
        ge=0,
        description="Number of optimizer steps; 0 trains for --epochs.",
    )
    learning_rate: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Peak learning rate; by default 2e-4, or 1e-3 from scratch.",
    )
    weight_decay: float = Field(default=0.01, description="Weight decay of AdamW.")
    beta2: float = Field(
        default=0.99, gt=0, lt=1, description="Decay rate of AdamW's second moment."
    )
    dropout: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="Dropout; by default the base's own, or 0 from scratch.",
    )
    warmup: float = Field(
        default=0.05,
        ge=0,
        lt=1,
        description="Fraction of the steps used to warm up the learning rate.",
    )
    schedule: Schedule = Field(
        default="cosine", description="How the learning rate decays after the warm-up."
    )
    batch_size: int = Field(default=8, gt=0, description="Rows per device and forward pass.")
    gradient_accumulation_steps: int = Field(
        default=4, gt=0, description="Forward passes per optimizer step."
    )
    block_size: int = Field(default=128, ge=8, description="Tokens per row.")
    packing: Packing = Field(
        default="jokes",
        description="Rows of whole jokes that do not attend to each other, or blocks cut across "
        "jokes.",
    )
    precision: Precision = Field(default="auto", description="Data type of matrix products.")
    compile: Compile = Field(
        default="auto", description="Compile the model; auto compiles where it saves time."
    )
    weights: Weights = Field(
        default="float32", description="Data type of the weights in the model folder."
    )
    checkpoint_minutes: float = Field(
        default=10.0, ge=0, description="Minutes between checkpoints."
    )
    test_limit: int = Field(
        default=2000, ge=1, description="Maximum number of test jokes to evaluate at the end."
    )
    validation_limit: int = Field(
        default=500,
        ge=1,
        description="Maximum number of training jokes to set aside for validation during training; "
        "never more than one in twenty.",
    )
    report_to: str = Field(
        default="mlflow",
        description="Trackers, comma-separated: mlflow, tensorboard, wandb; or none.",
    )
    seed: Seed = Field(default=1, description="Seed of initial weights, data order and dropout.")

    def __post_init__(self) -> None:
        if self.critic and not self.preferences:
            raise ValueError("setting 'critic' needs 'preferences': a critic learns from ratings")
        if self.critic and self.packing == "blocks":
            raise ValueError("setting 'critic' needs packing 'jokes': blocks cannot carry ratings")

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate given, or the one that measured best for the kind of base."""
        if self.learning_rate is not None:
            return self.learning_rate
        return 1e-3 if self.base.startswith("new:") else 2e-4

    @property
    def resolved_dropout(self) -> float | None:
        """The dropout to set; None leaves a pretrained base its own."""
        if self.dropout is None and self.base.startswith("new:"):
            return 0.0
        return self.dropout

    @property
    def reports(self) -> list[str]:
        """The names in ``report_to``; ``none`` is no name."""
        names = (name.strip() for name in self.report_to.split(","))
        return [name for name in names if name not in ("", "none")]

    def to_dict(self) -> dict[str, Any]:
        """Return all settings, with the learning rate resolved."""
        return {**asdict(self), "learning_rate": self.peak_learning_rate}


ORIGINAL: dict[str, Any] = {
    "recipe": "original",
    "learning_rate": 2e-5,
    "weight_decay": 0.01,
    "beta2": 0.999,
    "dropout": 0.1,
    "warmup": 0.0,
    "schedule": "linear",
    "batch_size": 8,
    "gradient_accumulation_steps": 1,
    "block_size": 128,
    "packing": "blocks",
    "precision": "float32",
    "compile": "never",
    "markers": "plain",
}
"""The original system's recipe: the defaults of Transformers' Trainer, blocks of 128
tokens across jokes, its markers plain text."""


def training_config(given: Mapping[str, Any], file: Path | None = None) -> TrainingConfig:
    """Return a recipe's settings, overridden by a file's, overridden by those given.

    Raises:
        ConfigError: If the file cannot be read, or a setting is unknown or its value not allowed.
    """
    fields = read_config_file(file) if file else {}
    if file:
        make_record(TrainingConfig, fields, file)  # so that an error names the file
    fields |= given
    return TrainingConfig(**(ORIGINAL if fields.get("recipe") == "original" else {}) | fields)
