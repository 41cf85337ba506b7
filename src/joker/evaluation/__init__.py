"""Metrics: how well a model predicts jokes, and how good its own are."""

from __future__ import annotations

from pydantic import Field

from joker.core.errors import ConfigError
from joker.core.record import Seed, record


@record(ConfigError)
class EvaluationConfig:
    """An evaluation's settings."""

    limit: int = Field(
        default=0,
        ge=0,
        description="Number of held-out jokes to evaluate, drawn at random; 0 takes all.",
    )
    retrieval_limit: int = Field(
        default=1000, ge=0, description="Maximum number of questions for punchline retrieval."
    )
    generate: int = Field(
        default=200, ge=0, description="Number of jokes to generate and measure; 0 generates none."
    )
    seed: Seed = Field(default=1, description="Random seed.")
