"""Tasks, and a running batch that they join and leave between two steps.

Two batches keep this protocol: `joker.engines.openvino` and `joker.engines.stub`.
`joker.engines.engine` decides which task joins when, and makes completions of outputs.
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
class GenerationTask:
    """Tokens to be drawn behind a prompt.

    Attributes:
        prompt_ids: What they continue; at least one.
        sampling: How they are drawn, and how many at most.
        seed: Decides the draw, from 0 to 2**32 - 1. A reproducible engine gives the same tokens
            for the same task whatever else is in the batch; on others seeds are best effort.
        streamed: Whether a listener wants the tokens as they are drawn; otherwise they may come
            all at the end.
    """

    prompt_ids: list[int]
    sampling: Sampling
    seed: int
    streamed: bool = False


@dataclass(frozen=True, slots=True)
class ScoringTask:
    """An answer whose probability is asked for; it fits into the model's context."""

    joke: EncodedJoke


Task = GenerationTask | ScoringTask


@dataclass(frozen=True, slots=True)
class Output:
    """What became of a task in a step, or in all its steps.

    Attributes:
        token_ids: Tokens drawn, the end token included when it was.
        done: Whether the task has left the batch.
        log_probability: Of a `ScoringTask`, in nats: log p(its answer and end | what stands
            before).
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
