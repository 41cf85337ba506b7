"""Tasks, and the batches that they join and leave between steps.

`joker.engines.openvino` and `joker.engines.stub` implement `Batch`. `joker.engines.engine` decides
when tasks join, and turns outputs into completions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from joker.core.joke import Sampling
from joker.core.tokenizer import EncodedJoke

Key = tuple[int, int]
"""Identifies a task: the call it belongs to, and its index there."""

MAX_SEQUENCES = 64
"""Maximum number of tasks in a batch. A larger one gains little on a CPU, 4% at 128 and 10% at 256,
and takes memory."""

SEQUENCE_TOKENS = 128
"""Minimum number of tokens that a task counts for."""

BATCH_TOKENS = MAX_SEQUENCES * SEQUENCE_TOKENS
"""Capacity of a batch: tokens of prompts, and those that may be generated. It bounds the memory of
the KV cache, to 106 MB for the bundled model at 8 bits and 377 MB at 32."""


def occupied(tokens: int) -> int:
    """Return how many of the `BATCH_TOKENS` a task with this many tokens occupies."""
    return max(tokens, SEQUENCE_TOKENS)


@dataclass(frozen=True, slots=True)
class GenerationTask:
    """A prompt to continue.

    Attributes:
        prompt_ids: At least one.
        sampling: How tokens are sampled, and how many at most.
        seed: Random seed, from 0 to 2**32 - 1. A reproducible engine gives the same tokens for the
            same task whatever else is in the batch; on others seeds are best effort.
        streamed: Whether a listener wants the tokens as they are generated; otherwise they may all
            come at the end.
    """

    prompt_ids: list[int]
    sampling: Sampling
    seed: int
    streamed: bool = False

    @property
    def occupied(self) -> int:
        """How much of a batch the task takes."""
        return occupied(len(self.prompt_ids) + self.sampling.max_new_tokens)


@dataclass(frozen=True, slots=True)
class ScoringTask:
    """A joke within the model's context; the output has its answer's log-probabilities."""

    joke: EncodedJoke
    streamed: ClassVar[bool] = False

    @property
    def occupied(self) -> int:
        """How much of a batch the task takes."""
        return occupied(len(self.joke))


EngineTask = GenerationTask | ScoringTask


@dataclass(frozen=True, slots=True)
class Output:
    """The output of a task in one step, or in all its steps.

    Attributes:
        token_ids: The generated tokens, including the end token.
        done: Whether the task has left the batch.
        log_probabilities: Of a `ScoringTask`, in nats: log p(token | preceding tokens) of every
            token from the answer's first.
        error: Why the task failed, in a sentence for the user.
    """

    token_ids: list[int] = field(default_factory=list)
    done: bool = False
    log_probabilities: list[float] = field(default_factory=list)
    error: str | None = None


class Batch(Protocol):
    """Tasks that advance together, a token at a time; all calls come from one thread.

    Attributes:
        capacity: Number of tokens that its tasks may occupy; a single task may occupy more.
    """

    capacity: int

    def add(self, key: Key, task: EngineTask) -> None:
        """Add a task."""
        ...

    def remove(self, key: Key) -> None:
        """Remove an unfinished task."""
        ...

    def step(self) -> dict[Key, Output]:
        """Advance every task; return the new outputs.

        Raises:
            ResourceError: If the machine runs out of memory; the batch cannot be used after it.
        """
        ...
