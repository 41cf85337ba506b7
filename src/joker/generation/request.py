"""A request for jokes, the same value on the command line, over HTTP, in queues and in the teller.

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
    """Return a random seed."""
    return secrets.randbelow(_SEEDS)


@record(InputError, strict=False)
class GenerationRequest:
    """A request for jokes; the fields describe themselves.

    The first joke has the request's own seed, so a larger count starts with the same jokes. Greedy
    sampling gets one attempt and one candidate, since others would be equal.

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
        description="Gives the same jokes again; random by default.",
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
        description="Attempts at each joke before it fails.",
    )
    safe: bool = Field(
        default=True, description="Withhold what moderation flags as offensive.", examples=[True]
    )
    exclude_categories: tuple[Category, ...] = Field(
        default=(),
        max_length=len(CATEGORIES),
        description="Also withhold jokes flagged for these categories, even for a mere topic.",
        examples=[["political", "religious"]],
    )
    deadline_seconds: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="Seconds after which an unfinished job fails; at most the server's own limit.",
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
                "unsafe jokes and excluded categories contradict each other; give one of the two"
            )
        return self

    def deadline_within(self, most_seconds: float) -> float:
        """Return the seconds until the job's deadline in a queue with this limit."""
        return min(self.deadline_seconds or most_seconds, most_seconds)
