"""The engine's process, separate from the server and shared by many threads.

A model that steps in the server's own process holds Python's lock meanwhile, and takes the server
with it when it crashes. So `EngineProcess` starts another one and sends it calls through a pipe;
`main` is what that process runs: it receives calls, steps, and sends new outputs. If the process
dies or hangs, its calls raise `EngineDiedError` and may be repeated; the next call starts a new
one. Closing the pipe ends it, so it never outlives its parent.
"""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count
from multiprocessing.connection import Connection, Pipe
from queue import Empty, SimpleQueue

from joker.core.errors import JokerError
from joker.engines.engine import Outputs, Scheduler
from joker.engines.protocol import GenerationListener
from joker.engines.tasks import Batch, GenerationTask, Key, Output, Task

# Not with -m, because what goes through the pipe names the module by its own name.
_MAIN = "import sys; from joker.engines.process import main; main(int(sys.argv[1]))"
# How soon a call notices that it is no longer wanted; each of up to 64 threads looks so often.
_LOOK_SECONDS = 0.25
_SILENT_SECONDS = 30.0
_SIGN_OF_LIFE_SECONDS = 1.0

_log = logging.getLogger(__name__)

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


class EngineDiedError(Exception):
    """The engine's process died before it answered; a retry gets a new one."""


class _Process:
    """One process, from its start until its end of the pipe closes.

    Args:
        open_batch: Opens the batch there; sent by pickle.

    Raises:
        JokerError: If the model cannot be loaded.
        EngineDiedError: If the process dies while loading.
    """

    def __init__(self, open_batch: Callable[[], Batch]) -> None:
        self.calls: dict[int, SimpleQueue[News | None]] = {}
        self.heard_at = time.monotonic()
        self.dead = False
        self._lock = threading.Lock()
        self._connection, theirs = Pipe()
        with theirs:
            self.popen = subprocess.Popen(
                [sys.executable, "-c", _MAIN, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        try:
            self._connection.send(open_batch)
            error = self._connection.recv()
        except (EOFError, OSError) as gone:
            raise EngineDiedError(f"the engine exited with code {self.popen.wait()}") from gone
        if error is not None:
            self.popen.wait()
            raise error
        threading.Thread(target=self._read, name="engine", daemon=True).start()

    def submit(self, call: int, tasks: Sequence[Task]) -> SimpleQueue[News | None]:
        """Send a call; return the queue of its news, or None once the process has died."""
        news: SimpleQueue[News | None] = SimpleQueue()
        with self._lock:
            if not self.calls:
                self.heard_at = time.monotonic()
            self.calls[call] = news
            if self.dead:
                news.put(None)
        self._send(Submit(call, tasks))
        return news

    def drop(self, call: int, place: int) -> None:
        """End one task."""
        self._send(Drop((call, place)))

    def forget(self, call: int, *, cancel: bool) -> None:
        """Drop all further news of a call; end its tasks too if it is to be cancelled."""
        with self._lock:
            self.calls.pop(call, None)
        if cancel:
            self._send(Cancel(call))

    def end(self) -> None:
        """Kill the process; pending calls are told that it died."""
        self.popen.kill()
        self.popen.wait()

    def _send(self, message: Submit | Drop | Cancel) -> None:
        # Whoever waits hears from the reader that the process is gone.
        with suppress(OSError), self._lock:
            self._connection.send(message)

    def _read(self) -> None:
        """Pass news on until the pipe closes; the reading thread's body."""
        with suppress(EOFError, OSError):
            while True:
                news: dict[int, News] = self._connection.recv()
                self.heard_at = time.monotonic()
                for call, outputs in news.items():
                    if waiting := self.calls.get(call):
                        waiting.put(outputs)
        with self._lock:
            self.dead = True
            orphans = list(self.calls.values())
            self._connection.close()
        for waiting in orphans:
            waiting.put(None)
        code = self.popen.wait()
        if orphans:
            _log.error("the engine exited with code %s", code)


class EngineProcess:
    """A runner for callers in many threads, with its batch in a separate process.

    Args:
        open_batch: Opens the batch in that process; a function that pickle can name.
        silent_seconds: A busy process that is silent for this long is killed.

    Raises:
        JokerError: If the model cannot be loaded.
    """

    def __init__(
        self, open_batch: Callable[[], Batch], *, silent_seconds: float = _SILENT_SECONDS
    ) -> None:
        self._open_batch = open_batch
        self._silent_seconds = silent_seconds
        self._numbers = count()
        self._starting = threading.Lock()
        self._process = _Process(open_batch)

    @property
    def pid(self) -> int:
        """The process's id; a new one after a restart."""
        return self._process.popen.pid

    def run(
        self, tasks: Sequence[Task], listener: GenerationListener | None = None
    ) -> list[Output]:
        """Run tasks in the shared batch; see `joker.engines.engine.Runner.run`.

        Raises:
            EngineDiedError: If the process died.
        """
        call = next(self._numbers)
        outputs = Outputs(tasks, listener)
        process = self._living()
        waiting = process.submit(call, tasks)
        try:
            while not outputs.complete:
                outputs.check_wanted()
                try:
                    news = waiting.get(timeout=_LOOK_SECONDS)
                except Empty:
                    self._end_if_silent(process)
                    continue
                if news is None:
                    raise EngineDiedError("the engine died and is being restarted")
                for place in outputs.take(news):
                    process.drop(call, place)
        finally:
            process.forget(call, cancel=not outputs.complete)
        return outputs.whole

    def close(self) -> None:
        """Kill the process; pending calls raise `EngineDiedError`."""
        self._process.end()

    def _living(self) -> _Process:
        """Return the process, or a new one if it has died."""
        with self._starting:
            if self._process.dead:
                self._process = _Process(self._open_batch)
            return self._process

    def _end_if_silent(self, process: _Process) -> None:
        if time.monotonic() - process.heard_at > self._silent_seconds:
            _log.error("the engine did not respond for %g seconds", self._silent_seconds)
            process.end()


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
