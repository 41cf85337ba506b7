"""What to measure, and how much of it: the options of ``joker evaluate``."""

from __future__ import annotations

from dataclasses import dataclass

from joker.core.config import option
from joker.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class EvaluationConfig:
    """An evaluation's settings."""

    limit: int = option(0, "Most held-out jokes to evaluate, chosen at random; 0 takes all.")
    retrieval_limit: int = option(1000, "Most questions asked for punchline retrieval.")
    generate: int = option(200, "Jokes to generate and examine; 0 generates none.")
    seed: int = option(1, "Seed of all that is drawn at random.")

    def __post_init__(self) -> None:
        for name in ("limit", "retrieval_limit", "generate"):
            if getattr(self, name) < 0:
                raise ConfigError(f"setting {name!r} must not be negative")
        if not 0 <= self.seed < 2**32:
            raise ConfigError("setting 'seed' must lie between 0 and 4294967295")
