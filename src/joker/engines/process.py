"""The engine's process, separate from the server and shared by many threads.

In the server's own process, a model would hold the GIL during its steps, and its crash would end
the server. So `ProcessRunner` starts a process and sends it calls through a pipe; `main` is what
that process runs: it receives calls, steps, and sends new outputs. If the process dies or hangs,
its calls raise `EngineDiedError` and may be retried; the next call starts a new process. It ends
when the pipe closes, so it never outlives its parent.
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

# Not with -m: objects sent through the pipe are pickled under the module's name, not __main__.
_MAIN = "import sys; from joker.engines.process import main; main(int(sys.argv[1]))"
# How often each waiting thread asks its listener whether to stop.
_POLL_SECONDS = 0.25
_TIMEOUT_SECONDS = 30.0
_HEARTBEAT_SECONDS = 1.0

_log = logging.getLogger(__name__)

Updates = dict[int, Output]
"""New outputs of a call's tasks, by their index."""


@dataclass(frozen=True, slots=True)
class Submit:
    """Adds tasks; a task that is not streamed sends its whole output at the end."""

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
    """The engine's process died before it answered; a retry starts a new one."""


class _Process:
    """One engine process, from its start to its end.

    Args:
        open_batch: Opens the batch there; pickled.

    Raises:
        JokerError: If the model cannot be loaded.
        EngineDiedError: If the process dies while loading.
    """

    def __init__(self, open_batch: Callable[[], Batch]) -> None:
        self.calls: dict[int, SimpleQueue[Updates | None]] = {}
        self.last_received_at = time.monotonic()
        self.dead = False
        self._lock = threading.Lock()
        self._connection, child_end = Pipe()
        with child_end:
            self.popen = subprocess.Popen(
                [sys.executable, "-c", _MAIN, str(child_end.fileno())],
                pass_fds=[child_end.fileno()],
                stdin=subprocess.DEVNULL,
                # Signals are for the parent, even if a shell sends them to its whole job.
                process_group=0,
            )
        try:
            self._connection.send(open_batch)
            error = self._connection.recv()
        except (EOFError, OSError) as closed:
            raise EngineDiedError(f"the engine exited with code {self.popen.wait()}") from closed
        if error is not None:
            self.popen.wait()
            raise error
        threading.Thread(target=self._receive, name="engine", daemon=True).start()

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

    def kill(self) -> None:
        """Kill the process; pending calls raise `EngineDiedError`."""
        self.popen.kill()
        self.popen.wait()

    def _send(self, message: Submit | Drop | Cancel) -> None:
        # If the process has died, the receiving thread wakes all waiting calls.
        with suppress(OSError), self._lock:
            self._connection.send(message)

    def _receive(self) -> None:
        """Pass updates on until the pipe closes; runs in the receiving thread."""
        with suppress(EOFError, OSError):
            while True:
                updates: dict[int, Updates] = self._connection.recv()
                self.last_received_at = time.monotonic()
                for call, outputs in updates.items():
                    if queue := self.calls.get(call):
                        queue.put(outputs)
        with self._lock:
            self.dead = True
            pending = list(self.calls.values())
            self._connection.close()
        for queue in pending:
            queue.put(None)
        code = self.popen.wait()
        if pending:
            _log.error("the engine exited with code %s", code)


class ProcessRunner:
    """A runner for callers in many threads, with its batch in a separate process.

    Args:
        open_batch: Opens the batch in that process; must be picklable.
        timeout_seconds: A busy process that sends nothing for this long is killed.

    Raises:
        JokerError: If the model cannot be loaded.
    """

    def __init__(
        self,
        open_batch: Callable[[], Batch],
        *,
        timeout_seconds: float = _TIMEOUT_SECONDS,
    ) -> None:
        self._open_batch = open_batch
        self._timeout_seconds = timeout_seconds
        self._call_ids = count()
        self._starting = threading.Lock()
        self._process = _Process(open_batch)

    def run(
        self, tasks: Sequence[EngineTask], listener: GenerationListener | None = None
    ) -> list[Output]:
        """Run tasks in the shared batch; see `joker.engines.engine.Runner.run`.

        Raises:
            EngineDiedError: If the process died.
        """
        call = next(self._call_ids)
        outputs = Outputs(tasks, listener)
        process = self._ensure_running()
        queue = process.submit(call, tasks)
        try:
            while not outputs.complete:
                outputs.raise_if_abandoned()
                try:
                    updates = queue.get(timeout=_POLL_SECONDS)
                except Empty:
                    self._kill_if_silent(process)
                    continue
                if updates is None:
                    raise EngineDiedError("the engine died and is being restarted")
                for index in outputs.add(updates):
                    process.drop(call, index)
        finally:
            process.forget(call, cancel=not outputs.complete)
        return outputs.results

    def close(self) -> None:
        """Kill the process; pending calls raise `EngineDiedError`."""
        self._process.kill()

    def _ensure_running(self) -> _Process:
        """Return the process, or a new one if it has died."""
        with self._starting:
            if self._process.dead:
                self._process = _Process(self._open_batch)
            return self._process

    def _kill_if_silent(self, process: _Process) -> None:
        if time.monotonic() - process.last_received_at > self._timeout_seconds:
            _log.error("the engine did not respond for %g seconds", self._timeout_seconds)
            process.kill()


def main(descriptor: int) -> None:
    """Open the batch and serve it; runs in the engine process.

    Args:
        descriptor: This end of the pipe. The first message is a function that returns the batch;
            the answer is None, or the `JokerError` it raised.
    """
    # The parent ends this process once its running jobs are done.
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
    """Run the tasks that the other end sends until it closes.

    Args:
        connection: Receives `Submit`, `Drop` and `Cancel`; sends a dict from calls to `Updates`,
            which is empty if it is only a heartbeat.
        batch: Runs the tasks.

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
