"""A request for jokes: the same value from the command line and HTTP through queues to the teller.

Each field declares its limits and its help once; options, HTTP parameters and their documentation
derive from them.
"""

from __future__ import annotations

import secrets
from typing import Self

from pydantic import Field, field_validator, model_validator

from joker.core.errors import InputError
from joker.core.record import record
from joker.core.sampling import Sampling
from joker.generation.moderation import CATEGORIES, Category, read_categories

DEFAULT_CANDIDATES = 16
DEFAULT_MAX_ATTEMPTS = 5
"""docs/experiments.md has what they do."""

_SEEDS = 2**32


def draw_seed() -> int:
    """Return a seed that nobody chose."""
    return secrets.randbelow(_SEEDS)


@record(InputError, strict=False)
class GenerationRequest:
    """What somebody asks for; each field says what it means.

    The first joke's seed is the request's own, so more jokes begin with the same ones. When the
    likeliest token is always taken, there is one attempt with one candidate: others would be equal.

    Raises:
        InputError: If a value is out of range.
    """

    prompt: str = Field(
        default="",
        description="The start of a question, a whole one ending in '?', a topic, or nothing: "
        "then the question is invented, too.",
        examples=["Why do cats"],
    )
    count: int = Field(default=1, ge=1, description="How many jokes.", examples=[1])
    sampling: Sampling = Field(default=Sampling(), description="How tokens are drawn.")
    seed: int = Field(
        default_factory=draw_seed,
        ge=0,
        le=_SEEDS - 1,
        description="Tells the same jokes again; by default one is drawn.",
        examples=[7],
    )
    candidates: int = Field(
        default=DEFAULT_CANDIDATES,
        ge=1,
        description="Drafts for each joke; the one that the model rates best is told.",
        examples=[4],
    )
    max_attempts: int = Field(
        default=DEFAULT_MAX_ATTEMPTS,
        ge=1,
        description="How often the model is asked at most for each joke that has a fault.",
    )
    safe: bool = Field(
        default=True, description="Withhold what moderation flags as offensive.", examples=[True]
    )
    exclude_categories: tuple[Category, ...] = Field(
        default=(),
        max_length=len(CATEGORIES),
        description="Also withhold what is flagged for one of these categories, even a mere topic.",
        examples=[["political", "religious"]],
    )
    deadline_seconds: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="Seconds until the job fails if it is not told, at most the server's own.",
        examples=[10],
    )

    @field_validator("exclude_categories")
    @classmethod
    def _in_order(cls, named: tuple[Category, ...]) -> tuple[Category, ...]:
        return read_categories(named)

    @model_validator(mode="after")
    def _one_rule_only(self) -> Self:
        if self.exclude_categories and not self.safe:
            raise ValueError(
                "unsafe jokes are asked for, and categories to exclude; give one of the two"
            )
        return self

    def deadline_within(self, most_seconds: float) -> float:
        """Return the seconds until the job's deadline in a queue that grants so many at most."""
        return min(self.deadline_seconds or most_seconds, most_seconds)
