"""The engine over a batch: prompts become tasks, outputs become completions and scores.

The steps themselves are a `Runner`'s: `InThread` here makes them while its one caller waits, and
`joker.engines.process.InProcess` has a process of its own make them for callers in many threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Protocol

from joker.core.errors import ResourceError
from joker.core.tokenizer import EncodedJoke, JokeTokenizer
from joker.engines.protocol import (
    AbandonedError,
    Completion,
    Hear,
    Request,
    Stopped,
    encode_request,
)
from joker.engines.scheduler import Scheduler
from joker.engines.tasks import Batch, Generation, Output, Scoring, Task

Follow = Callable[[int, list[int]], bool]
"""Is told a task's place and all its tokens so far, whenever a task that is streamed has more;
says whether that is enough and no more need be drawn."""


class Runner(Protocol):
    """Puts tasks through a batch."""

    def run(
        self, tasks: Sequence[Task], follow: Follow | None = None, stopped: Stopped | None = None
    ) -> list[Output]:
        """Return every task's whole output, in order.

        Args:
            tasks: What is to be done.
            follow: Told of tokens as they are drawn; may end a task early.
            stopped: Ends all of them early.

        Raises:
            AbandonedError: If ``stopped`` said so.
            ResourceError: If the machine runs out of memory.
        """
        ...

    def close(self) -> None:
        """Give the model's memory back."""
        ...


class BatchedEngine:
    """Keeps `joker.engines.protocol.Engine`'s promises with any batch.

    Args:
        tokenizer: The model's.
        context_length: Most tokens of a prompt and its continuation.
        runner: Makes the steps; whether several threads may call is its matter.
    """

    def __init__(self, tokenizer: JokeTokenizer, context_length: int, runner: Runner) -> None:
        self.tokenizer = tokenizer
        self._context_length = context_length
        self._runner = runner

    def generate(
        self,
        requests: Sequence[Request],
        *,
        hear: Hear | None = None,
        stopped: Stopped | None = None,
    ) -> list[Completion]:
        """Continue every request; see `Engine.generate`."""
        tasks = [self._generation(request, hear is not None) for request in requests]
        at_stop: set[int] = set()

        def follow(place: int, token_ids: list[int]) -> bool:
            if hear:
                hear(place, token_ids)
            sampling = tasks[place].sampling
            if sampling.stop:
                ids = [*tasks[place].prompt_ids, *token_ids]
                _, answer = self.tokenizer.parse_start(ids)
                if sampling.cut(answer) != answer:
                    at_stop.add(place)
            return place in at_stop

        outputs = self._runner.run(tasks, follow, stopped)
        return [
            Completion(
                [*task.prompt_ids, *output.token_ids],
                place in at_stop or self._has_ended(output),
            )
            for place, (task, output) in enumerate(zip(tasks, outputs, strict=True))
        ]

    def score(self, jokes: Sequence[EncodedJoke]) -> list[float]:
        """Return how likely every answer is; see `Engine.score`."""
        scores = [-math.inf] * len(jokes)
        kept = [i for i, joke in enumerate(jokes) if len(joke) <= self._context_length]
        outputs = self._runner.run([Scoring(jokes[i]) for i in kept])
        for index, output in zip(kept, outputs, strict=True):
            scores[index] = output.log_probability
        return scores

    def close(self) -> None:
        """Give the model's memory back; nothing can be asked for any more."""
        self._runner.close()

    def _generation(self, request: Request, streamed: bool) -> Generation:
        prompt_ids, max_new_tokens = encode_request(request, self.tokenizer, self._context_length)
        followed = streamed or bool(request.sampling.stop)
        return Generation(prompt_ids, max_new_tokens, request.sampling, request.seed, followed)

    def _has_ended(self, output: Output) -> bool:
        return output.token_ids[-1:] == [self.tokenizer.end_id]


class InThread:
    """A runner for one caller, who makes the steps while waiting.

    Args:
        batch: Where tasks advance.
    """

    def __init__(self, batch: Batch) -> None:
        self._scheduler = Scheduler(batch)
        self._calls = count()

    def run(
        self, tasks: Sequence[Task], follow: Follow | None = None, stopped: Stopped | None = None
    ) -> list[Output]:
        """Step until all tasks are done; see `Runner.run`."""
        call = next(self._calls)
        outputs = Outputs(len(tasks), follow)
        self._scheduler.submit(call, tasks)
        try:
            while not outputs.complete:
                if stopped and stopped():
                    raise AbandonedError
                new = self._scheduler.step()
                for place in outputs.take({place: output for (_, place), output in new.items()}):
                    self._scheduler.drop((call, place))
        finally:
            self._scheduler.cancel(call)
        return outputs.whole

    def close(self) -> None:
        """Do nothing: the batch goes with its last user."""


class Outputs:
    """Gathers the outputs of one call's tasks, step by step.

    Args:
        tasks: How many there are.
        follow: Told of new tokens.
    """

    def __init__(self, tasks: int, follow: Follow | None) -> None:
        self.whole = [Output() for _ in range(tasks)]
        self._open = tasks
        self._follow = follow

    @property
    def complete(self) -> bool:
        """Whether every task is done."""
        return self._open == 0

    def take(self, new: Mapping[int, Output]) -> list[int]:
        """Add what is new of each task, by its place; return the places that need no more.

        Raises:
            ResourceError: If a task was given up.
        """
        enough = []
        for place, output in new.items():
            if self.whole[place].done:  # it was under way when the task was dropped
                continue
            if output.error:
                raise ResourceError(output.error)
            token_ids = self.whole[place].token_ids + output.token_ids
            done = output.done
            if self._follow and output.token_ids and self._follow(place, token_ids) and not done:
                enough.append(place)
                done = True
            self.whole[place] = Output(token_ids, done, output.log_probability)
            self._open -= done
        return enough
