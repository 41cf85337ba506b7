"""How a model is trained: one configuration, and two recipes that fill it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from joker.core.config import make_config, option
from joker.core.errors import ConfigError
from joker.core.template import DEFAULT_TEMPLATE, MarkerKind

Recipe = Literal["joker", "original"]
Packing = Literal["jokes", "blocks"]
Precision = Literal["auto", "float32", "bfloat16"]
Compile = Literal["auto", "always", "never"]
Schedule = Literal["linear", "cosine", "constant"]
Weights = Literal["float32", "float16"]


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """A training run's settings; ``base`` decides the learning rate where none is given."""

    recipe: Recipe = option("joker", "Whose settings to start from: ours or the original system's.")
    base: str = option(
        "distilgpt2", "Hub name, folder, GGUF file, or new:SIZE (tiny, small, distil, gpt2)."
    )
    template: str = option(DEFAULT_TEMPLATE, "Template: original, separator, words, or a file.")
    markers: MarkerKind | None = option(None, "Markers as added special tokens or plain text.")
    safe: bool = option(False, "Leave out training jokes that moderation flags as offensive.")
    dedup: bool = option(False, "Train on one joke of each cluster of near-duplicates.")
    min_score: int = option(0, "Leave out clusters in which no post has so many points.")
    extra: str | None = option(
        None,
        "CSV or JSONL file of more jokes to train on; near-duplicates of test jokes are left out.",
    )
    punchline_first: bool = option(
        False, "Also learn from the punchline to the question, and invent jokes that way."
    )
    preferences: str | None = option(
        None,
        "CSV or JSONL file of rated jokes (question, answer, score): a critic learns all of them, "
        "and those from score 2 on are read as jokes.",
    )
    vocabulary_size: int | None = option(
        None, "Entries of the base's vocabulary to keep, those that the jokes use most."
    )
    freeze_layers: int = option(0, "Blocks at the bottom of the base that stay as they are.")
    epochs: float = option(3.0, "Passes over the training jokes.")
    max_steps: int = option(0, "Stop after so many optimizer steps; 0 goes by epochs.")
    learning_rate: float | None = option(None, "Peak learning rate of AdamW.")
    weight_decay: float = option(0.01, "Weight decay of AdamW.")
    beta2: float = option(0.99, "Second-moment decay of AdamW.")
    dropout: float | None = option(None, "Dropout; by default the base's own, 0 from scratch.")
    warmup: float = option(0.05, "Share of the steps in which the learning rate rises.")
    schedule: Schedule = option("cosine", "How the learning rate falls afterwards.")
    batch_size: int = option(8, "Rows per device in one forward pass.")
    gradient_accumulation_steps: int = option(4, "Forward passes per optimizer step.")
    block_size: int = option(128, "Tokens per row.")
    packing: Packing = option("jokes", "Rows of whole jokes apart, or blocks cut across jokes.")
    precision: Precision = option("auto", "Number format of matrix products.")
    compile: Compile = option("auto", "Compile the model: auto does so where it pays.")
    weights: Weights = option("float32", "Number format of the weights in the model folder.")
    checkpoint_minutes: float = option(10.0, "Minutes between checkpoints.")
    test_limit: int = option(2000, "Most test jokes measured on at the end.")
    seed: int = option(1, "Seed of initial weights, order and dropout.")

    def __post_init__(self) -> None:
        least = {
            "epochs": 0,
            "max_steps": -1,
            "batch_size": 0,
            "gradient_accumulation_steps": 0,
            "block_size": 7,
            "test_limit": 0,
            "min_score": -1,
            "freeze_layers": -1,
        }
        for name, bound in least.items():
            if not getattr(self, name) > bound:
                raise ConfigError(f"setting {name!r} must be above {bound}")
        if self.learning_rate is not None and not 0 < self.learning_rate < 1:
            raise ConfigError("setting 'learning_rate' must lie between 0 and 1")
        if not 0 <= self.warmup < 1:
            raise ConfigError("setting 'warmup' must be a share from 0 to below 1")
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise ConfigError("setting 'dropout' must be a share from 0 to below 1")
        if self.preferences and self.packing == "blocks":
            raise ConfigError(
                "setting 'preferences' needs packing 'jokes': a block has no verdicts"
            )
        if not 0 < self.beta2 < 1:
            raise ConfigError("setting 'beta2' must lie between 0 and 1")
        if self.checkpoint_minutes < 0:
            raise ConfigError("setting 'checkpoint_minutes' must not be negative")
        if not 0 <= self.seed < 2**32:
            raise ConfigError("setting 'seed' must lie between 0 and 4294967295")

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

    def to_dict(self) -> dict[str, Any]:
        """Return all settings, the learning rate resolved."""
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


def training_config(*layers: Mapping[str, Any]) -> TrainingConfig:
    """Return a recipe's settings with values from a file and the command line laid over it."""
    recipe = next((layer["recipe"] for layer in reversed(layers) if "recipe" in layer), "joker")
    return make_config(TrainingConfig, ORIGINAL if recipe == "original" else {}, *layers)
