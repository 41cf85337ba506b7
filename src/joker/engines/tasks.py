"""A running batch: tasks join and leave between two steps. What engines differ in stands below it.

Three batches keep this protocol: `joker.engines.openvino`, `joker.engines.transformers` and
`joker.engines.stub`. Which task joins when is `joker.engines.scheduler`'s matter, and how
text becomes a task and an output a completion `joker.engines.engine`'s.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import nan
from typing import Protocol

from joker.core.sampling import Sampling
from joker.core.tokenizer import EncodedJoke

Key = tuple[int, int]
"""Names a task: the call it belongs to, and its place there."""


@dataclass(frozen=True, slots=True)
class Generation:
    """Tokens to be drawn.

    Attributes:
        prompt_ids: What they continue; at least one.
        max_new_tokens: Most of them, within the model's context.
        sampling: How they are drawn; ``max_new_tokens`` above counts, not the one in here.
        seed: Decides the draw, whatever else is in the batch.
        streamed: Whether somebody follows the tokens; otherwise they may come all at the end.
    """

    prompt_ids: list[int]
    max_new_tokens: int
    sampling: Sampling
    seed: int
    streamed: bool = False


@dataclass(frozen=True, slots=True)
class Scoring:
    """An answer whose probability is asked for; it fits into the model's context."""

    joke: EncodedJoke


Task = Generation | Scoring


@dataclass(frozen=True, slots=True)
class Output:
    """What became of a task in a step, or in all its steps.

    Attributes:
        token_ids: Tokens drawn, the end token included when it was.
        done: Whether the task has left the batch.
        log_probability: Of a `Scoring`, in nats: log p(its answer and end | what stands before).
        error: Why the task was given up, in a sentence for who asked.
    """

    token_ids: list[int] = field(default_factory=list)
    done: bool = False
    log_probability: float = nan
    error: str | None = None


class Batch(Protocol):
    """Tasks that advance together, a token at a time.

    One thread makes all calls.

    Attributes:
        capacity: How many tasks are worth having in it at once.
    """

    capacity: int

    def add(self, key: Key, task: Task) -> None:
        """Let a task join."""
        ...

    def remove(self, key: Key) -> None:
        """Let a task leave unfinished."""
        ...

    def step(self) -> dict[Key, Output]:
        """Advance every task; return what is new of those that have something new.

        Raises:
            ResourceError: If the machine runs out of memory; the batch is of no use any more.
        """
        ...
