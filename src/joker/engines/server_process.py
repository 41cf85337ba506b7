"""The main loop of the engine's process: receive calls from a pipe, step, send new outputs.

`joker.engines.process` starts it and is the other end of the pipe. Closing the pipe ends it, so it
never outlives its parent.
"""

from __future__ import annotations

import signal
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection

from joker.core.errors import JokerError
from joker.engines.engine import Scheduler
from joker.engines.tasks import Batch, GenerationTask, Key, Output, Task

_SIGN_OF_LIFE_SECONDS = 1.0

News = dict[int, Output]
"""New outputs of a call's tasks, by their place."""


@dataclass(frozen=True, slots=True)
class Submit:
    """Adds tasks; outputs of tasks that are not streamed are sent once they are done."""

    call: int
    tasks: Sequence[Task]


@dataclass(frozen=True, slots=True)
class Cancel:
    """Ends all tasks of a call."""

    call: int


@dataclass(frozen=True, slots=True)
class Drop:
    """Ends one streamed task."""

    key: Key


def main(descriptor: int) -> None:
    """Open the batch and serve it; the body of the process.

    Args:
        descriptor: This end of the pipe. The first message is a function that returns the batch;
            the answer is None, or the `JokerError` it raised.
    """
    # Signals are for the parent, which may want running jobs to finish first.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    with suppress(EOFError, ConnectionError), Connection(descriptor) as connection:
        try:
            batch: Batch = connection.recv()()
        except JokerError as error:
            connection.send(error)
            return
        connection.send(None)
        serve(connection, batch)


def serve(connection: Connection, batch: Batch) -> None:
    """Step for the other end until it closes.

    Args:
        connection: Brings `Submit`, `Drop` and `Cancel`; takes a dict from calls to `News`, empty
            ones as signs of life.
        batch: Where tasks advance.

    Raises:
        EOFError: When the other end is closed.
    """
    scheduler = Scheduler(batch)
    unfollowed: dict[Key, list[int]] = {}
    said_at = time.monotonic()
    while True:
        while connection.poll(None if scheduler.idle else 0):
            message = connection.recv()
            if isinstance(message, Submit):
                scheduler.submit(message.call, message.tasks)
                unfollowed |= {
                    (message.call, place): []
                    for place, task in enumerate(message.tasks)
                    if isinstance(task, GenerationTask) and not task.streamed
                }
            elif isinstance(message, Drop):
                scheduler.drop(message.key)
            else:
                scheduler.cancel(message.call)
                for key in [key for key in unfollowed if key[0] == message.call]:
                    del unfollowed[key]
        news: defaultdict[int, News] = defaultdict(dict)
        for key, output in scheduler.step().items():
            if key in unfollowed:
                unfollowed[key] += output.token_ids
                if not output.done:
                    continue
                output = replace(output, token_ids=unfollowed.pop(key))
            call, place = key
            news[call][place] = output
        now = time.monotonic()
        if news or now - said_at > _SIGN_OF_LIFE_SECONDS:
            connection.send(dict(news))
            said_at = now
