"""How tokens are sampled, the same for all engines."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from joker.core.errors import InputError
from joker.core.record import record

MAX_STOPS = 4

StopText = Annotated[str, Field(min_length=1, max_length=100)]


@record(InputError, strict=False)
class Sampling:
    """Sampling parameters; the defaults are the original system's, except for the temperature."""

    temperature: float = Field(
        default=0.8,
        ge=0,
        le=5,
        allow_inf_nan=False,
        description="Sampling temperature: above 1 wilder, below 1 tamer, 0 greedy.",
    )
    top_k: int = Field(
        default=50, ge=0, description="Sample from the k likeliest tokens; 0 means from all."
    )
    top_p: float = Field(
        default=0.95,
        gt=0,
        le=1,
        description="Sample from the fewest likeliest tokens that together reach this probability.",
    )
    max_new_tokens: int = Field(
        default=100, ge=1, description="Maximum number of tokens after the prompt."
    )
    stop: tuple[StopText, ...] = Field(
        default=(),
        max_length=MAX_STOPS,
        description="Texts that end the answer; it is cut off before the first that occurs.",
        examples=[["!"]],
    )

    def cut(self, text: str) -> str:
        """Return a text up to the first stop text, or all of it if there is none."""
        ends = [text.find(stop) for stop in self.stop if stop in text]
        return text[: min(ends, default=len(text))]
