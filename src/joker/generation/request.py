"""A request for jokes, the same on the command line, over HTTP, in queues and in the teller."""

from __future__ import annotations

import secrets
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator
from pydantic.fields import FieldInfo

from joker.core.errors import InputError
from joker.core.joke import Sampling
from joker.core.record import record
from joker.engines.tasks import MAX_SEQUENCES, occupied
from joker.generation.moderation import CATEGORIES, Category, parse_categories
from joker.generation.prompt import asks_for_any_joke, without_greeting

DEFAULT_CANDIDATES = 16
DEFAULT_MAX_ATTEMPTS = 5
"""docs/experiments.md compares other numbers."""

EFFORT: FieldInfo = Field(
    ge=1,
    le=5,
    description="How hard to try: from 1 (fast, 4 drafts per joke) to 5 (slow, 64 drafts); another "
    "way to set the number of candidates.",
)
Effort = Annotated[int, EFFORT]

_SEEDS = 2**32
_BYTES_PER_TOKEN = 3
"""Fewer than in 99% of the questions in ``data/riddles.csv`` with the bundled tokenizer (4.4 on
average), so that prompts are rarely underestimated."""


def candidates_of(effort: int) -> int:
    """Return the number of drafts per joke of an `Effort`."""
    return int(2 ** (effort + 1))


def draw_seed() -> int:
    """Return a random seed."""
    return secrets.randbelow(_SEEDS)


@record(InputError, strict=False)
class GenerationRequest:
    """A request for jokes.

    The first joke has the request's own seed, so a larger count starts with the same jokes. Greedy
    sampling gets one attempt and one candidate, since all are equal. A prompt that asks for any
    joke, such as "tell me a joke", counts as no prompt, and a greeting before it does not count.
    """

    prompt: str = Field(
        default="",
        description="The start of a question, a whole question ending in '?', or a topic; "
        "without it, the question is invented, too.",
        examples=["Why do cats"],
    )
    count: int = Field(default=1, ge=1, description="Number of jokes.", examples=[1])
    sampling: Sampling = Field(default=Sampling(), description="How tokens are sampled.")
    seed: int = Field(
        default_factory=draw_seed,
        ge=0,
        le=_SEEDS - 1,
        description="Random seed; the same one gives the same jokes. By default a new one.",
        examples=[7],
    )
    candidates: int = Field(
        default=DEFAULT_CANDIDATES,
        ge=1,
        description="Drafts per joke; the one that the model ranks highest is told.",
        examples=[4],
    )
    max_attempts: int = Field(
        default=DEFAULT_MAX_ATTEMPTS,
        ge=1,
        description="Maximum number of attempts at each joke.",
    )
    safe: bool = Field(
        default=True,
        description="Withhold jokes that moderation flags as offensive.",
        examples=[True],
    )
    exclude_categories: tuple[Category, ...] = Field(
        default=(),
        max_length=len(CATEGORIES),
        description="Also withhold jokes on the topics of these moderation categories.",
        examples=[["political", "religious"]],
    )
    deadline_seconds: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="Time limit of the job in seconds, up to the server's own limit.",
        examples=[10],
    )

    @field_validator("prompt")
    @classmethod
    def _asks_for_something(cls, prompt: str) -> str:
        return "" if asks_for_any_joke(prompt) else without_greeting(prompt)

    @field_validator("exclude_categories")
    @classmethod
    def _in_order(cls, named: tuple[Category, ...]) -> tuple[Category, ...]:
        return parse_categories(named)

    @model_validator(mode="after")
    def _one_rule_only(self) -> Self:
        if self.exclude_categories and not self.safe:
            raise ValueError("'exclude_categories' cannot be combined with 'safe': false")
        return self

    @property
    def jokes_per_batch(self) -> int:
        """Number of jokes whose candidates fill a batch."""
        return max(1, MAX_SEQUENCES // self.candidates)

    @property
    def tokens(self) -> int:
        """Number of tokens that its drafts may occupy in a batch; the prompt's are estimated."""
        drafts = min(self.count, self.jokes_per_batch) * self.candidates
        prompt = len(self.prompt.encode()) // _BYTES_PER_TOKEN
        return drafts * occupied(prompt + self.sampling.max_new_tokens)

    def deadline_within(self, max_seconds: float) -> float:
        """Return the job's time limit in seconds, in a queue with this maximum."""
        return min(self.deadline_seconds or max_seconds, max_seconds)
