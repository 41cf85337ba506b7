"""A queue in this process: threads do the work, and nothing else needs to be installed.

All jobs belong to the event loop that submits them, so nothing is locked: threads get a request
and report back through the loop. Jobs end with the process.
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
from joker.jobs.execution import make_attempt
from joker.jobs.job import (
    Event,
    Job,
    JokeEvent,
    PartialEvent,
    State,
    event_id,
    read_event_id,
)
from joker.jobs.queue import (
    CONFLICT,
    LOST,
    MOST_ATTEMPTS,
    TOKENS_AT_ONCE,
    QueueStats,
    Work,
    full,
    late,
    unknown,
)

_JOIN_SECONDS = 5.0


@dataclass(slots=True, eq=False)
class _Entry:
    """A job, the newest draft of each joke that is not told yet, and who waits for them."""

    job: Job
    key: str | None
    drafts: dict[int, PartialEvent] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    stop: threading.Event = field(default_factory=threading.Event)
    readers: int = 0
    timer: asyncio.TimerHandle | None = None

    def move(self, state: State, **changes: Any) -> None:
        """Change the job and wake all who wait for that; drafts of another state are gone."""
        self.job = self.job.moved(state, **changes)
        self.drafts.clear()
        self.wake()

    def wake(self) -> None:
        """Wake all who wait for a change."""
        self.changed.set()
        self.changed = asyncio.Event()

    def add_draft(self, draft: PartialEvent) -> None:
        """Keep a draft, unless the job is final."""
        if not self.job.state.final:
            self.drafts[draft.index] = draft
            self.wake()

    def add_joke(self, joke: JokeEvent) -> None:
        """Add a joke, unless the job is final."""
        if not self.job.state.final:
            self.job = replace(self.job, told=(*self.job.told, joke))
            self.drafts.pop(joke.index, None)
            self.wake()


class _Attempt(GenerationListener):
    """Carries an attempt's progress from its thread to the event loop."""

    def __init__(self, entry: _Entry, post: Callable[..., None]) -> None:
        self._entry = entry
        self._post = post

    def wants_drafts(self) -> bool:
        return self._entry.readers > 0

    def on_draft(self, index: int, question: str, answer: str) -> None:
        self._post(self._entry.add_draft, PartialEvent(index, question, answer))

    def on_joke(self, index: int, joke: GeneratedJoke) -> None:
        self._post(self._entry.add_joke, JokeEvent(index, joke))

    def should_stop(self) -> bool:
        return self._entry.stop.is_set()


class InProcessQueue:
    """A `joker.jobs.queue.JobQueue` that lives as long as the process.

    Args:
        work: Tells a request's jokes; called by several threads at once.
        workers: How many threads there are. Fewer work at a time if their jobs may
            occupy `TOKENS_AT_ONCE` tokens.
        max_queue_size: Most jobs that wait.
        deadline_seconds: Longest time until a job is final.
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
        self._idle = workers
        self._tokens_in_hand = 0
        self._max_queue_size = max_queue_size
        self._deadline_seconds = deadline_seconds
        self._result_ttl_seconds = result_ttl_seconds
        self._entries: dict[str, _Entry] = {}
        self._keys: dict[str, str] = {}
        self._pending: dict[str, _Entry] = {}
        self._tasks: SimpleQueue[_Entry | None] = SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._told_at: float | None = None
        self._stopped = False
        # Daemon threads, because work that hangs must not keep the process alive.
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
            known = self._entries[self._keys[key]].job
            if known.request != request:
                raise KeyConflictError(CONFLICT)
            return known
        if len(self._pending) >= self._max_queue_size:
            raise QueueFullError(full(self._max_queue_size))
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
        self._hand_out()
        return job

    async def get(self, job_id: str) -> Job:
        return self._find(job_id).job

    async def cancel(self, job_id: str) -> Job:
        entry = self._find(job_id)
        self._finish(entry, entry.job.moved(State.REVOKED))
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
        seen = read_event_id(after)
        shown: dict[int, PartialEvent] = {}
        entry.readers += drafts
        try:
            while True:
                changed, job = entry.changed, entry.job
                newest = dict(entry.drafts) if drafts else {}
                for event in job.events(seen):
                    yield event
                seen = max(seen, job.position)
                for index, draft in newest.items():
                    if draft is not shown.get(index):
                        yield replace(draft, id=event_id(seen))
                shown = newest
                if job.state.final:
                    return
                await changed.wait()
        finally:
            entry.readers -= drafts

    async def stats(self) -> QueueStats:
        """Return the load and the number of threads."""
        told_at = self._told_at
        return QueueStats(
            waiting=len(self._pending),
            running=len(self._threads) - self._idle,
            workers=sum(thread.is_alive() for thread in self._threads),
            told_seconds_ago=None if told_at is None else time.monotonic() - told_at,
        )

    async def stop(self) -> None:
        """Revoke what is not final, which ends all waits."""
        self._stopped = True
        for entry in list(self._entries.values()):
            self._finish(entry, entry.job.moved(State.REVOKED, error="the server was stopped"))

    async def close(self) -> None:
        """Stop, and let the threads end."""
        await self.stop()
        for entry in self._entries.values():
            if entry.timer:
                entry.timer.cancel()
        for _ in self._threads:
            self._tasks.put(None)
        await asyncio.to_thread(self._join)

    def _join(self) -> None:
        until = time.monotonic() + _JOIN_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _find(self, job_id: str) -> _Entry:
        try:
            return self._entries[job_id]
        except KeyError:
            raise UnknownJobError(unknown(job_id)) from None

    def _hand_out(self) -> None:
        """Give waiting jobs to idle threads, the oldest first."""
        while self._idle and self._pending and self._tokens_in_hand < TOKENS_AT_ONCE:
            entry = self._pending.pop(next(iter(self._pending)))
            self._idle -= 1
            self._tokens_in_hand += entry.job.request.tokens
            entry.move(State.STARTED, attempts=entry.job.attempts + 1)
            self._tasks.put(entry)

    def _settle(self, entry: _Entry, outcome: Job) -> None:
        """Record the outcome of an attempt; its thread is idle again."""
        self._idle += 1
        self._tokens_in_hand -= entry.job.request.tokens
        if not entry.job.state.final:
            if outcome.state is State.SUCCESS:
                self._told_at = time.monotonic()
            if outcome.state.final:
                self._finish(entry, outcome)
            elif outcome.attempts >= MOST_ATTEMPTS:
                self._finish(entry, outcome.moved(State.FAILURE, error=LOST))
            else:
                entry.move(State.PENDING, told=())
                self._pending[entry.job.id] = entry
        self._hand_out()

    def _finish(self, entry: _Entry, outcome: Job) -> None:
        """Make a job final, unless it is, and delete it some time later."""
        job = entry.job
        if job.state.final:
            return
        self._pending.pop(job.id, None)
        entry.stop.set()
        told = job.told
        if outcome.state is State.SUCCESS:
            known = {event.index for event in told}
            told += tuple(event for event in outcome.told if event.index not in known)
        entry.move(
            outcome.state,
            told=told,
            error=outcome.error,
            refused=outcome.refused,
            ended=job.state.value,
        )
        if entry.timer and self._loop:
            entry.timer.cancel()
            entry.timer = self._loop.call_later(self._result_ttl_seconds, self._forget, entry)

    def _expire(self, entry: _Entry) -> None:
        reason = late(entry.job.request.deadline_within(self._deadline_seconds))
        self._finish(entry, entry.job.moved(State.FAILURE, error=reason))

    def _forget(self, entry: _Entry) -> None:
        del self._entries[entry.job.id]
        if entry.key is not None:
            del self._keys[entry.key]

    def _run(self) -> None:
        """Process jobs until the queue closes; the body of every thread."""
        while (entry := self._tasks.get()) is not None:
            outcome = make_attempt(entry.job, self._work, _Attempt(entry, self._post))
            self._post(self._settle, entry, outcome)

    def _post(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call a function in the event loop, from a thread."""
        # Nobody listens any more once the loop is closed.
        with suppress(RuntimeError):
            if self._loop:
                self._loop.call_soon_threadsafe(function, *arguments)
