"""A joke: a question and its answer, how its tokens are sampled, and how it was generated."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as pydantic_dataclass

from joker.core.errors import InputError
from joker.core.record import record

MAX_STOPS = 4

StopText = Annotated[str, Field(min_length=1, max_length=100)]

_KEY_WORD = re.compile(r"\b(?!because\b|little\b)(?:\d+|[^\W\d_]{5,})")


@dataclass(frozen=True, slots=True)
class Joke:
    """A question-and-answer joke, both parts without surrounding white space."""

    question: str
    answer: str

    def __post_init__(self) -> None:
        for part, text in (("question", self.question), ("answer", self.answer)):
            if not text or text != text.strip():
                raise ValueError(f"a joke's {part} must be text without surrounding white space")

    @classmethod
    def from_text(cls, question: str, answer: str) -> Joke | None:
        """Return the joke of two texts, or None if either is blank."""
        question, answer = question.strip(), answer.strip()
        return cls(question, answer) if question and answer else None

    @property
    def byte_count(self) -> int:
        """Number of UTF-8 bytes, the denominator of bits per byte."""
        return len(self.question.encode()) + len(self.answer.encode())


def punchline_key(answer: str) -> str:
    """Return a key that is equal for answers that readers would call the same punchline.

    They share all numbers and words of five letters or more: "It was too tired.", "He is tired!".
    """
    folded = answer.casefold()
    return " ".join(sorted(set(_KEY_WORD.findall(folded)))) or " ".join(folded.split())


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


@pydantic_dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class GeneratedJoke:
    """A generated joke and how it was generated; its JSON always has all of these fields."""

    question: str = Field(examples=["Why did the kettle blush?"])
    answer: str = Field(examples=["It saw the teapot's bare spout."])
    seed: int = Field(
        description="With the same prompt and options and a count of 1, gives this joke again."
    )
    attempts: int = Field(description="Number of attempts it took.")
    prompt_tokens: int = Field(default=0, description="Number of tokens in the prompt.")
    tokens: int = Field(
        default=0,
        description="Number of generated tokens, including the end; other drafts do not count.",
    )
    original: bool | None = Field(
        default=None,
        description="False for a near-duplicate of a training joke; null if unknown.",
    )
    similarity: float | None = Field(
        default=None,
        description="Similarity to the closest training joke, from 0 to 1; null if unknown.",
    )
    score: float | None = Field(
        default=None,
        description="How well the model rates it, in nats, higher is better: log-probability per "
        "token of the answer; null for the only draft.",
    )
    model: str | None = Field(default=None, description="The model that told it; null if unknown.")

    def __str__(self) -> str:
        return f"{self.question}\n{self.answer}"

    def _repr_html_(self) -> str:
        question, answer = (
            "<br>".join(html.escape(part).splitlines()) for part in (self.question, self.answer)
        )
        return f"<p>{question}<br><strong>{answer}</strong></p>"

    @property
    def pair(self) -> Joke:
        """Its question and answer alone."""
        return Joke(self.question, self.answer)
