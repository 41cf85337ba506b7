"""The engine over a batch: schedules tasks and turns their outputs into completions and scores.

A `Runner` steps the batch: `InThreadRunner` in its caller's thread, and
`joker.engines.process.ProcessRunner` in a separate process for callers in many threads. In both, a
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
            listener: Gets tokens as they are generated; may end one or all tasks early.

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
        context_length: Maximum number of tokens of a prompt and its completion.
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
        stopping = _StopListener(tasks, self.tokenizer, listener or GenerationListener())
        # Stop texts are found while tokens are streamed.
        streamed = [replace(task, streamed=True) if task.sampling.stop else task for task in tasks]
        with span("generate", {"joker.engine.drafts": len(tasks)}) as traced:
            outputs = self._runner.run(streamed, stopping)
            tokens = sum(len(output.token_ids) for output in outputs)
            traced.attributes["joker.engine.tokens"] = tokens
        return [
            Completion(
                [*task.prompt_ids, *output.token_ids],
                index in stopping.at_stop or output.token_ids[-1:] == [self.tokenizer.end_id],
            )
            for index, (task, output) in enumerate(zip(tasks, outputs, strict=True))
        ]

    def score(self, jokes: Sequence[EncodedJoke]) -> list[list[float]]:
        scores = [[-math.inf] * (len(joke) - joke.answer_start) for joke in jokes]
        fitting = [i for i, joke in enumerate(jokes) if len(joke) <= self._context_length]
        if not fitting:
            return scores
        with span("score", {"joker.engine.drafts": len(fitting)}):
            outputs = self._runner.run([ScoringTask(jokes[i]) for i in fitting])
        for index, output in zip(fitting, outputs, strict=True):
            scores[index] = output.log_probabilities
        return scores

    def close(self) -> None:
        self._runner.close()


class _StopListener(GenerationListener):
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
        stop = task.streamed and self._listener.on_tokens(index, token_ids)
        if task.sampling.stop:
            _, answer = self._tokenizer.parse_partial([*task.prompt_ids, *token_ids])
            if task.sampling.cut(answer) != answer:
                self.at_stop.add(index)
        return stop or index in self.at_stop

    def should_stop(self) -> bool:
        return self._listener.should_stop()


class InThreadRunner:
    """A runner for one thread, which steps the batch itself."""

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
                outputs.raise_if_abandoned()
                new = self._scheduler.step()
                for index in outputs.add({index: output for (_, index), output in new.items()}):
                    self._scheduler.drop((call, index))
        finally:
            self._scheduler.cancel(call)
        return outputs.results

    def close(self) -> None:
        """Do nothing: the batch is freed with this object."""


class Outputs:
    """Collects the outputs of one call's tasks, step by step.

    Args:
        tasks: The tasks.
        listener: Gets new tokens of streamed tasks.

    Attributes:
        results: Each task's output so far.
    """

    def __init__(self, tasks: Sequence[EngineTask], listener: GenerationListener | None) -> None:
        self.results = [Output() for _ in tasks]
        self._streamed = [task.streamed for task in tasks]
        self._unfinished = len(tasks)
        self._listener = listener or GenerationListener()

    @property
    def complete(self) -> bool:
        """Whether every task is done."""
        return not self._unfinished

    def raise_if_abandoned(self) -> None:
        """Raise `AbandonedError` if the listener asks to stop."""
        if self._listener.should_stop():
            raise AbandonedError

    def add(self, new: Mapping[int, Output]) -> list[int]:
        """Add the new outputs by task index; return the tasks that the listener ended.

        Raises:
            ResourceError: If a task failed.
        """
        ended = []
        for index, output in new.items():
            if self.results[index].done:  # the output was sent before the task was dropped
                continue
            if output.error:
                raise ResourceError(output.error)
            token_ids = self.results[index].token_ids + output.token_ids
            done = output.done
            is_new = self._streamed[index] and output.token_ids
            if is_new and self._listener.on_tokens(index, token_ids) and not done:
                ended.append(index)
                done = True
            self.results[index] = Output(token_ids, done, output.log_probabilities)
            self._unfinished -= done
        return ended


class Scheduler:
    """Feeds a batch round-robin from any number of calls, so that no call waits for another.

    A call is one caller's list of tasks, from a single prompt to a thousand jokes to score. A large
    call fills the batch while it is alone, and shares it with later ones.
    """

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._waiting: dict[int, deque[tuple[Key, EngineTask]]] = {}
        self._running: dict[Key, int] = {}
        self._rejected: dict[Key, Output] = {}

    @property
    def idle(self) -> bool:
        """Whether there are no tasks."""
        return not (self._waiting or self._running or self._rejected)

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
        outputs, self._rejected = self._rejected, {}
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
            # The call goes to the back of the queue.
            tasks = self._waiting.pop(call)
            tasks.popleft()
            if tasks:
                self._waiting[call] = tasks
            try:
                self._batch.add(key, task)
            except Exception:  # A task that the library rejects must not fail the others.
                _log.exception("the engine rejected %r", task)
                reason = "the engine rejected this request; change its parameters"
                self._rejected[key] = Output(done=True, error=reason)
            else:
                self._running[key] = task.occupied
                occupied += task.occupied
