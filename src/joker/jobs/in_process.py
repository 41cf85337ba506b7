"""A queue in this process: threads do the work, without any other service.

Only the event loop changes jobs, so there are no locks; threads report back through the loop. Jobs
end with the process.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from queue import SimpleQueue
from typing import Any

from joker.core.errors import KeyConflictError, QueueFullError, QueueStoppedError, UnknownJobError
from joker.core.joke import GeneratedJoke
from joker.core.tracing import traceparent
from joker.engines.protocol import GenerationListener
from joker.generation.request import GenerationRequest
from joker.jobs.execution import run_attempt
from joker.jobs.job import (
    Event,
    Job,
    JokeEvent,
    PartialEvent,
    State,
    format_event_id,
    parse_event_id,
)
from joker.jobs.queue import (
    KEY_CONFLICT_MESSAGE,
    LOST_MESSAGE,
    MAX_ATTEMPTS,
    MAX_RUNNING_TOKENS,
    QueueStats,
    Work,
    deadline_message,
    queue_full_message,
    unknown_job_message,
)

_JOIN_SECONDS = 5.0


@dataclass(slots=True, eq=False)
class _Entry:
    """A job, the newest draft of each unfinished joke, and what waits for them."""

    job: Job
    key: str | None
    drafts: dict[int, PartialEvent] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    stop: threading.Event = field(default_factory=threading.Event)
    draft_readers: int = 0
    timer: asyncio.TimerHandle | None = None

    def set_state(self, state: State, **changes: Any) -> None:
        """Change the job's state, drop all drafts, and wake waiters."""
        self.job = replace(self.job, state=state, **changes)
        self.drafts.clear()
        self.wake()

    def wake(self) -> None:
        """Wake everything that waits for a change."""
        self.changed.set()
        self.changed = asyncio.Event()

    def add_draft(self, draft: PartialEvent) -> None:
        """Set a joke's newest draft, unless the job is final."""
        if not self.job.state.final:
            self.drafts[draft.index] = draft
            self.wake()

    def add_joke(self, joke: JokeEvent) -> None:
        """Add a joke, unless the job is final."""
        if not self.job.state.final:
            self.job = replace(self.job, told=(*self.job.told, joke))
            self.drafts.pop(joke.index, None)
            self.wake()


class _Progress(GenerationListener):
    """Reports an attempt's progress from its thread to the event loop."""

    def __init__(self, entry: _Entry, call_in_loop: Callable[..., None]) -> None:
        self._entry = entry
        self._call_in_loop = call_in_loop

    def wants_drafts(self) -> bool:
        return self._entry.draft_readers > 0

    def on_draft(self, index: int, question: str, answer: str) -> None:
        self._call_in_loop(self._entry.add_draft, PartialEvent(index, question, answer))

    def on_joke(self, index: int, joke: GeneratedJoke) -> None:
        self._call_in_loop(self._entry.add_joke, JokeEvent(index, joke))

    def should_stop(self) -> bool:
        return self._entry.stop.is_set()


class InProcessQueue:
    """A `joker.jobs.queue.JobQueue` that lives as long as the process.

    Args:
        work: Tells a request's jokes; must be thread-safe.
        workers: Number of threads; `MAX_RUNNING_TOKENS` may keep some of them idle.
        max_queue_size: Maximum number of waiting jobs.
        deadline_seconds: Time limit of a job, including the time it waits.
        result_ttl_seconds: How long a final job is kept.
    """

    def __init__(
        self,
        work: Work,
        *,
        workers: int = 64,
        max_queue_size: int = 64,
        deadline_seconds: float = 60.0,
        result_ttl_seconds: float = 900.0,
    ) -> None:
        self._work = work
        self._idle_threads = workers
        self._running_tokens = 0
        self._max_queue_size = max_queue_size
        self._deadline_seconds = deadline_seconds
        self._result_ttl_seconds = result_ttl_seconds
        self._entries: dict[str, _Entry] = {}
        self._keys: dict[str, str] = {}
        self._pending: dict[str, _Entry] = {}
        self._started: SimpleQueue[_Entry | None] = SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._told_at: float | None = None
        self._stopped = False
        # Daemon threads, so that hanging work does not keep the process alive.
        self._threads = [
            threading.Thread(target=self._run, name=f"joke-{number}", daemon=True)
            for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    async def submit(
        self, request: GenerationRequest, *, key: str | None = None, request_id: str | None = None
    ) -> Job:
        if self._stopped:
            raise QueueStoppedError
        if key is not None and key in self._keys:
            existing = self._entries[self._keys[key]].job
            if existing.request != request:
                raise KeyConflictError(KEY_CONFLICT_MESSAGE)
            return existing
        if len(self._pending) >= self._max_queue_size:
            raise QueueFullError(queue_full_message(self._max_queue_size))
        self._loop = asyncio.get_running_loop()
        now = time.time()
        deadline_seconds = request.deadline_within(self._deadline_seconds)
        job = Job(
            id=secrets.token_urlsafe(16),
            request=request,
            state=State.PENDING,
            created_at=now,
            deadline_at=now + deadline_seconds,
            request_id=request_id,
            trace=traceparent(),
        )
        entry = self._entries[job.id] = self._pending[job.id] = _Entry(job, key)
        if key is not None:
            self._keys[key] = job.id
        entry.timer = self._loop.call_later(deadline_seconds, self._expire, entry)
        self._dispatch()
        return job

    async def get(self, job_id: str) -> Job:
        return self._find(job_id).job

    async def cancel(self, job_id: str) -> Job:
        entry = self._find(job_id)
        self._finish(entry, replace(entry.job, state=State.REVOKED))
        return entry.job

    async def wait(self, job_id: str, timeout_seconds: float) -> Job:
        entry = self._find(job_id)
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                while not entry.job.state.final:
                    await entry.changed.wait()
        return entry.job

    async def events(
        self, job_id: str, after: str | None = None, *, drafts: bool = True
    ) -> AsyncIterator[Event]:
        entry = self._find(job_id)
        seen = parse_event_id(after)
        yielded: dict[int, PartialEvent] = {}
        entry.draft_readers += drafts
        try:
            while True:
                changed, job = entry.changed, entry.job
                newest = dict(entry.drafts) if drafts else {}
                for event in job.events(seen):
                    yield event
                seen = max(seen, job.position)
                for index, draft in newest.items():
                    if draft is not yielded.get(index):
                        yield replace(draft, id=format_event_id(seen))
                yielded = newest
                if job.state.final:
                    return
                await changed.wait()
        finally:
            entry.draft_readers -= drafts

    async def stats(self) -> QueueStats:
        """Return the queue's load and its number of threads."""
        told_at = self._told_at
        return QueueStats(
            waiting=len(self._pending),
            running=len(self._threads) - self._idle_threads,
            workers=sum(thread.is_alive() for thread in self._threads),
            told_seconds_ago=None if told_at is None else time.monotonic() - told_at,
        )

    async def stop(self) -> None:
        """Revoke all jobs that are not final, which ends all waits."""
        self._stopped = True
        for entry in list(self._entries.values()):
            error = "the server was stopped"
            self._finish(entry, replace(entry.job, state=State.REVOKED, error=error))

    async def close(self) -> None:
        """Stop, and wait briefly for the threads to end."""
        await self.stop()
        for entry in self._entries.values():
            if entry.timer:
                entry.timer.cancel()
        for _ in self._threads:
            self._started.put(None)
        await asyncio.to_thread(self._join)

    def _join(self) -> None:
        deadline = time.monotonic() + _JOIN_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _find(self, job_id: str) -> _Entry:
        try:
            return self._entries[job_id]
        except KeyError:
            raise UnknownJobError(unknown_job_message(job_id)) from None

    def _dispatch(self) -> None:
        """Start waiting jobs on idle threads, oldest first."""
        while self._idle_threads and self._pending and self._running_tokens < MAX_RUNNING_TOKENS:
            entry = self._pending.pop(next(iter(self._pending)))
            self._idle_threads -= 1
            self._running_tokens += entry.job.request.tokens
            entry.set_state(State.STARTED, attempts=entry.job.attempts + 1)
            self._started.put(entry)

    def _end_attempt(self, entry: _Entry, outcome: Job) -> None:
        """Record an attempt's outcome, and start waiting jobs on its thread."""
        self._idle_threads += 1
        self._running_tokens -= entry.job.request.tokens
        if not entry.job.state.final:
            if outcome.state is State.SUCCESS:
                self._told_at = time.monotonic()
            if outcome.state.final:
                self._finish(entry, outcome)
            elif outcome.attempts >= MAX_ATTEMPTS:
                self._finish(entry, replace(outcome, state=State.FAILURE, error=LOST_MESSAGE))
            else:
                entry.set_state(State.PENDING, told=())
                self._pending[entry.job.id] = entry
        self._dispatch()

    def _finish(self, entry: _Entry, outcome: Job) -> None:
        """Make a job final unless it is already, and delete it after its TTL."""
        job = entry.job
        if job.state.final:
            return
        self._pending.pop(job.id, None)
        entry.stop.set()
        told = {event.index for event in job.told}
        rest = tuple(event for event in outcome.told if event.index not in told)
        entry.set_state(
            outcome.state,
            told=job.told + rest,
            error=outcome.error,
            refused=outcome.refused,
            ended=job.state.value,
        )
        if entry.timer and self._loop:
            entry.timer.cancel()
            entry.timer = self._loop.call_later(self._result_ttl_seconds, self._delete, entry)

    def _expire(self, entry: _Entry) -> None:
        deadline_seconds = entry.job.request.deadline_within(self._deadline_seconds)
        error = deadline_message(deadline_seconds)
        self._finish(entry, replace(entry.job, state=State.FAILURE, error=error))

    def _delete(self, entry: _Entry) -> None:
        del self._entries[entry.job.id]
        if entry.key is not None:
            del self._keys[entry.key]

    def _run(self) -> None:
        """Run started jobs until the queue closes; the body of every thread."""
        while (entry := self._started.get()) is not None:
            outcome = run_attempt(entry.job, self._work, _Progress(entry, self._call_in_loop))
            self._call_in_loop(self._end_attempt, entry, outcome)

    def _call_in_loop(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call a function in the event loop, from a thread."""
        with suppress(RuntimeError):  # The loop is closed.
            if self._loop:
                self._loop.call_soon_threadsafe(function, *arguments)
