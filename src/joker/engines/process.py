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
from joker.engines.tasks import Batch, EngineTask, Key, Output

# Not with -m, because what goes through the pipe names the module by its own name.
_MAIN = "import sys; from joker.engines.process import main; main(int(sys.argv[1]))"
# How often each waiting thread, of which there may be 64, checks that its call is still wanted.
_POLL_SECONDS = 0.25
_SILENT_SECONDS = 30.0
_HEARTBEAT_SECONDS = 1.0

_log = logging.getLogger(__name__)

Updates = dict[int, Output]
"""New outputs of a call's tasks, by their index."""


@dataclass(frozen=True, slots=True)
class Submit:
    """Adds tasks; outputs of tasks that are not streamed are sent once they are done."""

    call: int
    tasks: Sequence[EngineTask]


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
        self.calls: dict[int, SimpleQueue[Updates | None]] = {}
        self.last_received_at = time.monotonic()
        self.dead = False
        self._lock = threading.Lock()
        self._connection, theirs = Pipe()
        with theirs:
            self.popen = subprocess.Popen(
                [sys.executable, "-c", _MAIN, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                # Signals are for the parent, even if a shell sends them to its whole job.
                process_group=0,
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

    def submit(self, call: int, tasks: Sequence[EngineTask]) -> SimpleQueue[Updates | None]:
        """Send a call; return the queue of its updates, which ends in None if the process dies."""
        updates: SimpleQueue[Updates | None] = SimpleQueue()
        with self._lock:
            if not self.calls:
                self.last_received_at = time.monotonic()
            self.calls[call] = updates
            if self.dead:
                updates.put(None)
        self._send(Submit(call, tasks))
        return updates

    def drop(self, call: int, index: int) -> None:
        """End one task."""
        self._send(Drop((call, index)))

    def forget(self, call: int, *, cancel: bool) -> None:
        """Discard further updates of a call; also end its tasks if ``cancel`` is set."""
        with self._lock:
            self.calls.pop(call, None)
        if cancel:
            self._send(Cancel(call))

    def end(self) -> None:
        """Kill the process; calls under way raise `EngineDiedError`."""
        self.popen.kill()
        self.popen.wait()

    def _send(self, message: Submit | Drop | Cancel) -> None:
        # If the process is gone, the reading thread wakes all waiting calls.
        with suppress(OSError), self._lock:
            self._connection.send(message)

    def _read(self) -> None:
        """Pass updates on until the pipe closes; the body of the reading thread."""
        with suppress(EOFError, OSError):
            while True:
                updates: dict[int, Updates] = self._connection.recv()
                self.last_received_at = time.monotonic()
                for call, outputs in updates.items():
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

    def run(
        self, tasks: Sequence[EngineTask], listener: GenerationListener | None = None
    ) -> list[Output]:
        """Run tasks in the shared batch; see `joker.engines.engine.Runner.run`.

        Raises:
            EngineDiedError: If the process died.
        """
        call = next(self._numbers)
        outputs = Outputs(tasks, listener)
        process = self._ensure_running()
        waiting = process.submit(call, tasks)
        try:
            while not outputs.complete:
                outputs.check_wanted()
                try:
                    updates = waiting.get(timeout=_POLL_SECONDS)
                except Empty:
                    self._end_if_silent(process)
                    continue
                if updates is None:
                    raise EngineDiedError("the engine died and is being restarted")
                for index in outputs.take(updates):
                    process.drop(call, index)
        finally:
            process.forget(call, cancel=not outputs.complete)
        return outputs.whole

    def close(self) -> None:
        """Kill the process; pending calls raise `EngineDiedError`."""
        self._process.end()

    def _ensure_running(self) -> _Process:
        """Return the process, or a new one if it has died."""
        with self._starting:
            if self._process.dead:
                self._process = _Process(self._open_batch)
            return self._process

    def _end_if_silent(self, process: _Process) -> None:
        if time.monotonic() - process.last_received_at > self._silent_seconds:
            _log.error("the engine did not respond for %g seconds", self._silent_seconds)
            process.end()


def main(descriptor: int) -> None:
    """Open the batch and serve it; the body of the process.

    Args:
        descriptor: This end of the pipe. The first message is a function that returns the batch;
            the answer is None, or the `JokerError` it raised.
    """
    # The parent may want running jobs to finish first.
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
        connection: Receives `Submit`, `Drop` and `Cancel`; sends a dict from calls to `Updates`,
            which is empty if it is only a heartbeat.
        batch: Where tasks advance.

    Raises:
        EOFError: When the other end is closed.
    """
    scheduler = Scheduler(batch)
    unstreamed: dict[Key, list[int]] = {}
    last_sent_at = time.monotonic()
    while True:
        while connection.poll(None if scheduler.idle else 0):
            message = connection.recv()
            if isinstance(message, Submit):
                scheduler.submit(message.call, message.tasks)
                unstreamed |= {
                    (message.call, index): []
                    for index, task in enumerate(message.tasks)
                    if not task.streamed
                }
            elif isinstance(message, Drop):
                scheduler.drop(message.key)
            else:
                scheduler.cancel(message.call)
                for key in [key for key in unstreamed if key[0] == message.call]:
                    del unstreamed[key]
        updates: defaultdict[int, Updates] = defaultdict(dict)
        for key, output in scheduler.step().items():
            if key in unstreamed:
                unstreamed[key] += output.token_ids
                if not output.done:
                    continue
                output = replace(output, token_ids=unstreamed.pop(key))
            call, index = key
            updates[call][index] = output
        now = time.monotonic()
        if updates or now - last_sent_at > _HEARTBEAT_SECONDS:
            connection.send(dict(updates))
            last_sent_at = now
