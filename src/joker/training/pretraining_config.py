"""How a model is pretrained: one configuration."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from joker.core.config import option
from joker.core.errors import ConfigError
from joker.core.template import DEFAULT_TEMPLATE, MarkerKind
from joker.training.config import Compile, Precision, Weights

OptimizerKind = Literal["muon", "adamw"]

_COUNT = re.compile(r"(\d+(?:\.\d+)?)([kMB]?)")
_KEPT_FORM = "setting 'kept' is written like 'books=7M humor=500k'"
_MIXTURE_FORM = "a mixture is written like 'jokes=1 books=3'"
_FACTORS = {"": 1, "k": 10**3, "M": 10**6, "B": 10**9}


@dataclass(frozen=True, slots=True)
class PretrainingConfig:
    """A pretraining's settings."""

    base: str = option("", "Model to go on from, its tokenizer kept: folder or hub name.")
    size: str = option("small", "Shape of a model from scratch: tiny, small, distil, gpt2.")
    layers: int = option(
        0, "Blocks: of a new model, or of a base, whose own are stacked; 0 leaves their number."
    )
    budget: str = option("50M", "Tokens to read, such as 500k, 50M or 1B.")
    template: str = option(DEFAULT_TEMPLATE, "Layout: original, separator, words, or a file.")
    markers: MarkerKind | None = option(None, "Markers as added special tokens or plain text.")
    mixture: str = option("", "Shares of the sources, such as 'jokes=1 books=3'; else by size.")
    final_mixture: str = option("", "Shares while the learning rate falls; else as before.")
    kept: str = option(
        "", "Most tokens kept of sources, such as 'books=7M'; else what the budget reads."
    )
    posts: str = option("", "Sources of posts, parsed into jokes where they are: 'humor,other'.")
    leave_out: str = option("", "Origins of documents that are not read: 'someboard,other'.")
    safe: bool = option(False, "Leave out what moderation flags as offensive.")
    distinct: bool = option(False, "Read one of jokes and posts that are near-copies.")
    dropout: float = option(0.0, "Share of activations dropped.")
    optimizer: OptimizerKind = option("muon", "Muon for hidden matrices, or AdamW for all.")
    learning_rate: float = option(2e-3, "Peak learning rate.")
    weight_decay: float = option(0.1, "Weight decay.")
    warmup: float = option(0.02, "Share of the steps in which the learning rate rises.")
    decay: float = option(0.4, "Share of the steps at the end in which it falls to 0.")
    batch_size: int = option(16, "Rows per device in one forward pass.")
    accumulation: int = option(4, "Forward passes per optimizer step.")
    block_size: int = option(256, "Tokens per row.")
    precision: Precision = option("auto", "Number format of matrix products.")
    compile: Compile = option("auto", "Compile the model: auto does so where it pays.")
    weights: Weights = option("float32", "Number format of the weights in the model folder.")
    checkpoint_minutes: float = option(10.0, "Minutes between checkpoints.")
    test_limit: int = option(2000, "Most test jokes measured on at the end.")
    seed: int = option(1, "Seed of initial weights and order.")

    def __post_init__(self) -> None:
        least = {"batch_size": 1, "accumulation": 1, "block_size": 8, "test_limit": 1}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ConfigError(f"setting {name!r} must be at least {bound}")
        if not 0 < self.learning_rate < 1:
            raise ConfigError("setting 'learning_rate' must lie between 0 and 1")
        if min(self.warmup, self.decay) < 0 or self.warmup + self.decay > 1:
            raise ConfigError("settings 'warmup' and 'decay' are shares that add up to 1 at most")
        if min(self.weight_decay, self.checkpoint_minutes) < 0:
            raise ConfigError("'weight_decay' and 'checkpoint_minutes' must not be negative")
        if self.layers < 0:
            raise ConfigError("setting 'layers' must be a number of blocks, or 0")
        if not 0 <= self.dropout < 1:
            raise ConfigError("setting 'dropout' must be a share from 0 to below 1")
        if not 0 <= self.seed < 2**32:
            raise ConfigError("setting 'seed' must lie between 0 and 4294967295")
        for mixture in (self.mixture, self.final_mixture):
            if mixture:
                parse_shares(mixture)
        _parse_numbers(self.kept, _read_count, _KEPT_FORM)
        if self.kept and not self.mixture:
            raise ConfigError("setting 'kept' goes with 'mixture'; without one all text is kept")
        if self.steps < 1:
            raise ConfigError(
                f"a budget of {self.budget} tokens does not make one step of "
                f"{self.tokens_per_step:,}; raise it or lower batch_size or accumulation"
            )

    @property
    def tokens_per_step(self) -> int:
        """Tokens in one optimizer step of one process."""
        return self.batch_size * self.accumulation * self.block_size

    @property
    def budget_tokens(self) -> int:
        """The budget as a number."""
        try:
            return round(_read_count(self.budget))
        except ValueError as error:
            raise ConfigError(
                f"setting 'budget' must be a number of tokens such as 500k, 50M or 1B, "
                f"not {self.budget!r}"
            ) from error

    @property
    def steps(self) -> int:
        """Optimizer steps of one process that the budget allows."""
        return self.budget_tokens // self.tokens_per_step

    @property
    def tokens_kept(self) -> dict[str, float] | None:
        """Tokens to keep of each source; None keeps all, as goes with a mixture by size."""
        if not self.mixture:
            return None
        tokens: defaultdict[str, float] = defaultdict(float)
        for mixture, part in (
            (self.mixture, 1 - self.decay),
            (self.final_mixture or self.mixture, self.decay),
        ):
            shares = parse_shares(mixture)
            for source, share in shares.items():
                tokens[source] += self.budget_tokens * part * share / sum(shares.values())
        return dict(tokens) | _parse_numbers(self.kept, _read_count, _KEPT_FORM)

    def to_dict(self) -> dict[str, Any]:
        """Return all settings."""
        return asdict(self)


def parse_shares(text: str) -> dict[str, float]:
    """Read shares such as ``jokes=1 books=3``; only their ratios count.

    Raises:
        ConfigError: If the text is not of this form.
    """
    shares = _parse_numbers(text, float, _MIXTURE_FORM)
    if not any(shares.values()):
        raise ConfigError("a mixture needs at least one source with a share above 0")
    return shares


def _parse_numbers(text: str, read: Callable[[str], float], form: str) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for part in text.replace(",", " ").split():
        name, _, number = part.partition("=")
        try:
            numbers[name] = read(number)
        except ValueError:
            numbers[name] = -1.0
        if not name or not 0 <= numbers[name] < float("inf"):
            raise ConfigError(f"{form}, but {part!r} is not of that form")
    return numbers


def _read_count(text: str) -> float:
    """Read a number such as 500k; raise ValueError for anything else."""
    found = _COUNT.fullmatch(text.replace(",", ""))
    if not found:
        raise ValueError(text)
    return float(found[1]) * _FACTORS[found[2]]
