"""The scheduler: which tasks of which calls join the batch next, so that no call waits for another.

A call is what one caller asks for at once, from a single joke's draw to a thousand scores. Calls
take turns: one with many tasks fills the batch while it is alone, and then shares it.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence

from joker.engines.tasks import Batch, Key, Output, Task

_log = logging.getLogger(__name__)


class Scheduler:
    """Feeds a batch from any number of calls.

    Args:
        batch: Where tasks advance.
    """

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._waiting: dict[int, deque[tuple[Key, Task]]] = {}
        self._running: set[Key] = set()
        self._refused: dict[Key, Output] = {}

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing runs."""
        return not (self._waiting or self._running or self._refused)

    def submit(self, call: int, tasks: Sequence[Task]) -> None:
        """Let a call's tasks wait for their turns."""
        if tasks:
            self._waiting[call] = deque(((call, place), task) for place, task in enumerate(tasks))

    def cancel(self, call: int) -> None:
        """Drop what a call has in the batch and before it."""
        self._waiting.pop(call, None)
        for key in [key for key in self._running if key[0] == call]:
            self.drop(key)

    def drop(self, key: Key) -> None:
        """Let a task leave the batch unfinished, if it is still there."""
        if key in self._running:
            self._running.remove(key)
            self._batch.remove(key)

    def step(self) -> dict[Key, Output]:
        """Fill the batch and advance it; return what is new.

        Raises:
            ResourceError: If the machine runs out of memory.
        """
        self._admit()
        outputs, self._refused = self._refused, {}
        if self._running:
            outputs |= self._batch.step()
        self._running.difference_update(key for key, output in outputs.items() if output.done)
        return outputs

    def _admit(self) -> None:
        while self._waiting and len(self._running) < self._batch.capacity:
            # The call that had its turn goes to the end of the line.
            call = next(iter(self._waiting))
            tasks = self._waiting.pop(call)
            key, task = tasks.popleft()
            if tasks:
                self._waiting[call] = tasks
            try:
                self._batch.add(key, task)
            except Exception:  # A task the library cannot take must not cost the others theirs.
                _log.exception("the engine cannot take %r", task)
                reason = "the engine cannot take this request; change its parameters"
                self._refused[key] = Output(done=True, error=reason)
            else:
                self._running.add(key)
