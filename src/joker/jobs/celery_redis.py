"""A queue over many processes and machines: Redis keeps the jobs, the workers' Celery fetches them.

This is the clients' side; `joker.jobs.leases` is the workers'.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any

from pydantic_core import to_json
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.exceptions import OutOfMemoryError, ResponseError

from joker.core.errors import KeyConflictError, MemoryFullError, QueueFullError, UnknownJobError
from joker.core.tracing import traceparent
from joker.generation.request import GenerationRequest
from joker.jobs.broker import (
    CONNECTION,
    FUNCTION,
    KEY,
    LIBRARY,
    SCRIPT,
    SUBMIT,
    is_missing,
    reaching,
    read_record,
)
from joker.jobs.connection import open_pool
from joker.jobs.job import Event, Job, event_id, read_event_id
from joker.jobs.queue import CONFLICT, MEMORY_FULL, QueueStats, full, unknown
from joker.jobs.watcher import JobWatcher

_CONNECTIONS = 32
_TURN_SECONDS = 20.0
# Jobs are refused while less than this share of Redis's memory is free, or less than this many
# bytes (but half of it at most): leases, results and messages of accepted jobs need room.
_FREE_SHARE = 0.1
_FREE_BYTES = 8 * 2**20
_MEMORY_SECONDS = 1.0


class CeleryRedisQueue:
    """A `joker.jobs.queue.JobQueue` for many servers and workers, which may come and go.

    Args:
        url: The broker's; see `joker.jobs.connection`.
        max_queue_size: Most jobs that wait.
        deadline_seconds: Longest time until a job is final.
        result_ttl_seconds: How long a final job is kept.
    """

    def __init__(
        self,
        url: str,
        *,
        max_queue_size: int = 64,
        deadline_seconds: float = 60.0,
        result_ttl_seconds: float = 900.0,
    ) -> None:
        self._url = url
        self._max_queue_size = max_queue_size
        self._deadline_seconds = deadline_seconds
        self._result_ttl_seconds = result_ttl_seconds
        retry = Retry(ExponentialBackoff(cap=0.5, base=0.05), 3)
        # More calls than connections wait their turn.
        pool = open_pool(
            url, max_connections=_CONNECTIONS, timeout=_TURN_SECONDS, retry=retry, **CONNECTION
        )
        self._redis = Redis.from_pool(pool)
        self._name = secrets.token_urlsafe(8)
        options = CONNECTION | {"health_check_interval": 0, "protocol": 2}
        once = Retry(NoBackoff(), 0)
        channel = open_pool(url, max_connections=1, timeout=_TURN_SECONDS, retry=once, **options)
        self._watcher = JobWatcher(Redis.from_pool(channel), self._name, self._watch)
        self._memory: tuple[int, int | None] = (0, None)
        self._memory_at = -_MEMORY_SECONDS

    async def submit(
        self, request: GenerationRequest, *, key: str | None = None, request_id: str | None = None
    ) -> Job:
        if not await self._has_room():
            raise MemoryFullError(MEMORY_FULL)
        job_id = secrets.token_urlsafe(16)
        text = to_json(request).decode()
        deadline_seconds = request.deadline_within(self._deadline_seconds)
        arguments = (
            "submit",
            job_id,
            self._name,
            text,
            json.dumps(request_id),
            "" if key is None else _digest(key),
            _digest(text),
            self._max_queue_size,
            deadline_seconds,
            self._result_ttl_seconds,
            traceparent() or "",
            request.tokens,
        )
        watched = self._watcher.expect(job_id)
        with reaching(self._url):
            try:
                what, record = await self._run(SUBMIT, arguments)
            except OutOfMemoryError as error:
                raise MemoryFullError(MEMORY_FULL) from error
        if what == "full":
            raise QueueFullError(full(self._max_queue_size))
        if what == "conflict":
            raise KeyConflictError(CONFLICT)
        job = read_record(record)
        if what == "new":
            watched.learn(job, deadline_seconds)
        return job

    async def get(self, job_id: str) -> Job:
        return _known(job_id, await self._call("read", job_id))

    async def cancel(self, job_id: str) -> Job:
        return _known(job_id, await self._call("cancel", job_id))

    async def wait(self, job_id: str, timeout_seconds: float) -> Job:
        if timeout_seconds > 0:
            with suppress(TimeoutError):
                async with (
                    asyncio.timeout(timeout_seconds),
                    aclosing(self._watcher.follow(job_id)) as changes,  # type: ignore[type-var]
                ):
                    async for watched in changes:
                        if watched.job and watched.job.state.final:
                            return watched.job
        return await self.get(job_id)

    async def events(
        self, job_id: str, after: str | None = None, *, drafts: bool = True
    ) -> AsyncIterator[Event]:
        """Yield a job's events after the given one; see `JobQueue.events`.

        Partial text has the id of the event before it. It is not repeated, and is left out if it
        arrives after its joke. The jokes of a lost attempt are not repeated either.
        """
        seen = read_event_id(after)
        shown = None
        following = self._watcher.follow(job_id, drafts=drafts)
        async with aclosing(following) as changes:  # type: ignore[type-var]
            async for watched in changes:
                job = watched.job
                assert job is not None
                for event in job.events(seen):
                    yield event
                seen = max(seen, job.position)
                if drafts and watched.draft and watched.draft is not shown:
                    attempt, part = watched.draft
                    # The joke may have been told while the client was busy with other events.
                    newest = watched.job or job
                    if newest.awaits(attempt, part.index):
                        shown = watched.draft
                        yield replace(part, id=event_id(seen))

    async def stats(self) -> QueueStats:
        """Return the load, the number of live workers and Redis's memory."""
        waiting, running, workers, told_seconds_ago = await self._call("stats")
        used_bytes, limit_bytes = await self._measure_memory()
        return QueueStats(
            waiting,
            running,
            workers,
            float(told_seconds_ago) if told_seconds_ago else None,
            used_bytes,
            limit_bytes,
        )

    async def stop(self) -> None:
        """End all waits; workers go on with the jobs."""
        self._watcher.stop()

    async def close(self) -> None:
        """Stop, and close the connections."""
        await self.stop()
        await self._watcher.close()
        await self._redis.aclose()

    async def _watch(self, job_id: str, drafts: bool) -> tuple[Job, float]:
        found = await self._call("watch", job_id, self._name, int(drafts))
        if found is None:
            raise UnknownJobError(unknown(job_id))
        record, left_seconds = found
        return read_record(record), float(left_seconds)

    async def _measure_memory(self) -> tuple[int, int | None]:
        """Return how many bytes Redis uses and may use; at most a second old."""
        if time.monotonic() - self._memory_at >= _MEMORY_SECONDS:
            self._memory_at = time.monotonic()
            with reaching(self._url):
                memory: Any = await self._redis.info("memory")
            self._memory = int(memory["used_memory"]), int(memory["maxmemory"]) or None
        return self._memory

    async def _has_room(self) -> bool:
        used_bytes, limit_bytes = await self._measure_memory()
        if limit_bytes is None:
            return True
        free_bytes = max(_FREE_SHARE * limit_bytes, min(_FREE_BYTES, limit_bytes / 2))
        return used_bytes + free_bytes <= limit_bytes

    async def _call(self, *arguments: Any) -> Any:
        with reaching(self._url):
            return await self._run(FUNCTION, arguments)

    async def _run(self, function: str, arguments: tuple[Any, ...]) -> Any:
        try:
            return await self._redis.fcall(function, 1, KEY, *arguments)
        except ResponseError as error:
            if not is_missing(error):
                raise
        try:
            await self._redis.function_load(LIBRARY, replace=True)
        except OutOfMemoryError:
            if function == SUBMIT:
                raise
            return await self._redis.eval(SCRIPT, 1, KEY, *arguments)
        return await self._redis.fcall(function, 1, KEY, *arguments)


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _known(job_id: str, record: str | None) -> Job:
    if record is None:
        raise UnknownJobError(unknown(job_id))
    return read_record(record)
