"""The engine over a batch: schedules tasks and turns their outputs into completions and scores.

A `Runner` makes the steps: `InThread` makes them in its caller's thread, and
`joker.engines.process.EngineProcess` in a separate process for callers in many threads. In both, a
`Scheduler` decides which tasks join the batch next.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Protocol

from joker.core.errors import ResourceError
from joker.core.tokenizer import EncodedJoke, JokeTokenizer
from joker.core.tracing import span
from joker.engines.protocol import AbandonedError, Completion, GenerationListener, fit_context
from joker.engines.tasks import Batch, EngineTask, GenerationTask, Key, Output, ScoringTask

_log = logging.getLogger(__name__)


class Runner(Protocol):
    """Runs tasks to completion."""

    def run(
        self, tasks: Sequence[EngineTask], listener: GenerationListener | None = None
    ) -> list[Output]:
        """Return every task's whole output, in order.

        Args:
            tasks: The tasks.
            listener: Gets tokens as they are drawn; may end one or all tasks early.

        Raises:
            AbandonedError: If the listener asked to stop.
            ResourceError: If the machine runs out of memory.
        """
        ...

    def close(self) -> None:
        """Release the model."""
        ...


class BatchedEngine:
    """A `joker.engines.protocol.Engine` with any runner.

    Args:
        tokenizer: The model's.
        context_length: Most tokens of a prompt and its continuation.
        runner: Runs the tasks; the engine is as thread-safe as its runner.
    """

    def __init__(self, tokenizer: JokeTokenizer, context_length: int, runner: Runner) -> None:
        self.tokenizer = tokenizer
        self._context_length = context_length
        self._runner = runner

    def generate(
        self, tasks: Sequence[GenerationTask], listener: GenerationListener | None = None
    ) -> list[Completion]:
        tasks = [fit_context(task, self._context_length) for task in tasks]
        stopping = _StopsAtTexts(tasks, self.tokenizer, listener or GenerationListener())
        # A stop is found in the text, so tokens must be seen as they come.
        followed = [replace(task, streamed=True) if task.sampling.stop else task for task in tasks]
        with span("generate", {"joker.engine.drafts": len(tasks)}) as traced:
            outputs = self._runner.run(followed, stopping)
            tokens = sum(len(output.token_ids) for output in outputs)
            traced.attributes["joker.engine.tokens"] = tokens
        return [
            Completion(
                [*task.prompt_ids, *output.token_ids],
                index in stopping.at_stop or output.token_ids[-1:] == [self.tokenizer.end_id],
            )
            for index, (task, output) in enumerate(zip(tasks, outputs, strict=True))
        ]

    def score(self, jokes: Sequence[EncodedJoke]) -> list[float]:
        scores = [-math.inf] * len(jokes)
        kept = [i for i, joke in enumerate(jokes) if len(joke) <= self._context_length]
        if not kept:
            return scores
        with span("score", {"joker.engine.drafts": len(kept)}):
            outputs = self._runner.run([ScoringTask(jokes[i]) for i in kept])
        for index, output in zip(kept, outputs, strict=True):
            scores[index] = output.log_probability
        return scores

    def close(self) -> None:
        self._runner.close()


class _StopsAtTexts(GenerationListener):
    """Passes tokens on to another listener and ends tasks at their stop texts."""

    def __init__(
        self,
        tasks: Sequence[GenerationTask],
        tokenizer: JokeTokenizer,
        listener: GenerationListener,
    ) -> None:
        self.at_stop: set[int] = set()
        self._tasks = tasks
        self._tokenizer = tokenizer
        self._listener = listener

    def on_tokens(self, index: int, token_ids: list[int]) -> bool:
        task = self._tasks[index]
        enough = task.streamed and self._listener.on_tokens(index, token_ids)
        if task.sampling.stop:
            _, answer = self._tokenizer.parse_partial([*task.prompt_ids, *token_ids])
            if task.sampling.cut(answer) != answer:
                self.at_stop.add(index)
        return enough or index in self.at_stop

    def should_stop(self) -> bool:
        return self._listener.should_stop()


class InThread:
    """A runner for one thread, which makes the steps itself.

    Args:
        batch: Where tasks advance.
    """

    def __init__(self, batch: Batch) -> None:
        self._scheduler = Scheduler(batch)
        self._calls = count()

    def run(
        self, tasks: Sequence[EngineTask], listener: GenerationListener | None = None
    ) -> list[Output]:
        call = next(self._calls)
        outputs = Outputs(tasks, listener)
        self._scheduler.submit(call, tasks)
        try:
            while not outputs.complete:
                outputs.check_wanted()
                new = self._scheduler.step()
                for index in outputs.take({index: output for (_, index), output in new.items()}):
                    self._scheduler.drop((call, index))
        finally:
            self._scheduler.cancel(call)
        return outputs.whole

    def close(self) -> None:
        """Do nothing: the batch is freed with this object."""


class Outputs:
    """Gathers the outputs of one call's tasks, step by step.

    Args:
        tasks: The tasks.
        listener: Gets new tokens of streamed tasks.
    """

    def __init__(self, tasks: Sequence[EngineTask], listener: GenerationListener | None) -> None:
        self.whole = [Output() for _ in tasks]
        self._streamed = [task.streamed for task in tasks]
        self._open = len(tasks)
        self._listener = listener or GenerationListener()

    @property
    def complete(self) -> bool:
        """Whether every task is done."""
        return not self._open

    def check_wanted(self) -> None:
        """Raise `AbandonedError` if the listener asks to stop."""
        if self._listener.should_stop():
            raise AbandonedError

    def take(self, new: Mapping[int, Output]) -> list[int]:
        """Add the new output of each task, by its index; return the indices that need no more.

        Raises:
            ResourceError: If a task failed.
        """
        enough = []
        for index, output in new.items():
            if self.whole[index].done:  # it was under way when the task was dropped
                continue
            if output.error:
                raise ResourceError(output.error)
            token_ids = self.whole[index].token_ids + output.token_ids
            done = output.done
            is_new = self._streamed[index] and output.token_ids
            if is_new and self._listener.on_tokens(index, token_ids) and not done:
                enough.append(index)
                done = True
            self.whole[index] = Output(token_ids, done, output.log_probability)
            self._open -= done
        return enough


class Scheduler:
    """Feeds a batch round-robin from any number of calls, so that no call waits for another.

    A call is one caller's list of tasks, from a single draw to a thousand scores. A large call
    fills the batch while it is alone, and shares it with later ones.

    Args:
        batch: Where tasks advance.
    """

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._waiting: dict[int, deque[tuple[Key, EngineTask]]] = {}
        self._running: dict[Key, int] = {}
        self._refused: dict[Key, Output] = {}

    @property
    def idle(self) -> bool:
        """Whether there are no tasks."""
        return not (self._waiting or self._running or self._refused)

    def submit(self, call: int, tasks: Sequence[EngineTask]) -> None:
        """Queue a call's tasks."""
        if tasks:
            self._waiting[call] = deque(((call, index), task) for index, task in enumerate(tasks))

    def cancel(self, call: int) -> None:
        """Drop a call's waiting and running tasks."""
        self._waiting.pop(call, None)
        for key in [key for key in self._running if key[0] == call]:
            self.drop(key)

    def drop(self, key: Key) -> None:
        """Remove an unfinished task from the batch, if it is still there."""
        if key in self._running:
            del self._running[key]
            self._batch.remove(key)

    def step(self) -> dict[Key, Output]:
        """Fill the batch and advance it; return the new outputs.

        Raises:
            ResourceError: If the machine runs out of memory.
        """
        self._admit()
        outputs, self._refused = self._refused, {}
        if self._running:
            outputs |= self._batch.step()
        for key, output in outputs.items():
            if output.done:
                self._running.pop(key, None)
        return outputs

    def _admit(self) -> None:
        occupied = sum(self._running.values())
        while self._waiting:
            call = next(iter(self._waiting))
            key, task = self._waiting[call][0]
            if self._running and occupied + task.occupied > self._batch.capacity:
                return
            # The call that had its turn goes to the end of the line.
            tasks = self._waiting.pop(call)
            tasks.popleft()
            if tasks:
                self._waiting[call] = tasks
            try:
                self._batch.add(key, task)
            except Exception:  # A task that the library rejects must not fail the others.
                _log.exception("the engine rejected %r", task)
                reason = "the engine rejected this request; change its parameters"
                self._refused[key] = Output(done=True, error=reason)
            else:
                self._running[key] = task.occupied
                occupied += task.occupied
