"""A queue for many servers and workers: Redis stores the jobs, the workers' Celery fetches them.

This is the client side; `joker.jobs.leases` is the worker side.
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
    CONNECTION_OPTIONS,
    FUNCTION,
    LIBRARY,
    SCRIPT,
    SLOT_KEY,
    SUBMIT_FUNCTION,
    is_function_missing,
    parse_record,
    translate_redis_errors,
)
from joker.jobs.connection import open_pool
from joker.jobs.job import Event, Job, format_event_id, parse_event_id
from joker.jobs.queue import (
    KEY_CONFLICT_MESSAGE,
    MEMORY_FULL_MESSAGE,
    QueueStats,
    queue_full_message,
    unknown_job_message,
)
from joker.jobs.watcher import JobWatcher

_MAX_CONNECTIONS = 32
_POOL_TIMEOUT_SECONDS = 20.0
# New jobs are rejected while less than this share of `maxmemory` is free, or less than this many
# bytes (at most half of it), because leases, results and messages of accepted jobs need memory.
_MIN_FREE_SHARE = 0.1
_MIN_FREE_BYTES = 8 * 2**20
_MEMORY_TTL_SECONDS = 1.0


class CeleryRedisQueue:
    """A `joker.jobs.queue.JobQueue` for many servers and workers, which may come and go.

    Args:
        url: The broker URL; see `joker.jobs.connection`.
        max_queue_size: Maximum number of waiting jobs.
        deadline_seconds: Time limit of a job, including the time it waits.
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
        pool = open_pool(
            url,
            max_connections=_MAX_CONNECTIONS,
            timeout=_POOL_TIMEOUT_SECONDS,
            retry=retry,
            **CONNECTION_OPTIONS,
        )
        self._redis = Redis.from_pool(pool)
        self._name = secrets.token_urlsafe(8)
        pubsub_pool = open_pool(
            url,
            max_connections=1,
            timeout=_POOL_TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),
            **CONNECTION_OPTIONS | {"health_check_interval": 0, "protocol": 2},
        )
        self._watcher = JobWatcher(Redis.from_pool(pubsub_pool), self._name, self._watch)
        self._memory: tuple[int, int | None] = (0, None)
        self._memory_at = -_MEMORY_TTL_SECONDS

    async def submit(
        self, request: GenerationRequest, *, key: str | None = None, request_id: str | None = None
    ) -> Job:
        if not await self._has_memory():
            raise MemoryFullError(MEMORY_FULL_MESSAGE)
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
        with translate_redis_errors(self._url):
            try:
                outcome, record = await self._run(SUBMIT_FUNCTION, arguments)
            except OutOfMemoryError as error:
                raise MemoryFullError(MEMORY_FULL_MESSAGE) from error
        if outcome == "full":
            raise QueueFullError(queue_full_message(self._max_queue_size))
        if outcome == "conflict":
            raise KeyConflictError(KEY_CONFLICT_MESSAGE)
        job = parse_record(record)
        if outcome == "new":
            watched.set(job, deadline_seconds)
        return job

    async def get(self, job_id: str) -> Job:
        return parse_record(await self._call_for_job("read", job_id))

    async def cancel(self, job_id: str) -> Job:
        return parse_record(await self._call_for_job("cancel", job_id))

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
        """Yield a job's events; see `JobQueue.events`.

        Partial text has the id of the event before it. It is not repeated, and is dropped if it
        arrives after its joke. The jokes of a lost attempt are not repeated either.
        """
        seen = parse_event_id(after)
        last_draft = None
        following = self._watcher.follow(job_id, drafts=drafts)
        async with aclosing(following) as changes:  # type: ignore[type-var]
            async for watched in changes:
                job = watched.job
                assert job is not None
                for event in job.events(seen):
                    yield event
                seen = max(seen, job.position)
                if drafts and watched.draft and watched.draft is not last_draft:
                    attempt, partial = watched.draft
                    # The joke may have been finished while the client read other events.
                    newest = watched.job or job
                    if newest.is_drafting(attempt, partial.index):
                        last_draft = watched.draft
                        yield replace(partial, id=format_event_id(seen))

    async def stats(self) -> QueueStats:
        """Return the queue's load, its number of live workers and Redis's memory."""
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
        """End all waits; workers continue the jobs."""
        self._watcher.stop()

    async def close(self) -> None:
        """Stop and close the connections."""
        await self.stop()
        await self._watcher.close()
        await self._redis.aclose()

    async def _watch(self, job_id: str, drafts: bool) -> tuple[Job, float]:
        """See `joker.jobs.watcher.Read`."""
        record, seconds_left = await self._call_for_job("watch", job_id, self._name, int(drafts))
        return parse_record(record), float(seconds_left)

    async def _measure_memory(self) -> tuple[int, int | None]:
        """Return the bytes that Redis uses and its limit, cached for a second."""
        if time.monotonic() - self._memory_at >= _MEMORY_TTL_SECONDS:
            self._memory_at = time.monotonic()
            with translate_redis_errors(self._url):
                memory: Any = await self._redis.info("memory")
            self._memory = int(memory["used_memory"]), int(memory["maxmemory"]) or None
        return self._memory

    async def _has_memory(self) -> bool:
        used_bytes, limit_bytes = await self._measure_memory()
        if limit_bytes is None:
            return True
        min_free_bytes = max(_MIN_FREE_SHARE * limit_bytes, min(_MIN_FREE_BYTES, limit_bytes / 2))
        return limit_bytes - used_bytes >= min_free_bytes

    async def _call_for_job(self, command: str, job_id: str, *arguments: Any) -> Any:
        answer = await self._call(command, job_id, *arguments)
        if answer is None:
            raise UnknownJobError(unknown_job_message(job_id))
        return answer

    async def _call(self, *arguments: Any) -> Any:
        with translate_redis_errors(self._url):
            return await self._run(FUNCTION, arguments)

    async def _run(self, function: str, arguments: tuple[Any, ...]) -> Any:
        try:
            return await self._redis.fcall(function, 1, SLOT_KEY, *arguments)
        except ResponseError as error:
            if not is_function_missing(error):
                raise
        try:
            await self._redis.function_load(LIBRARY, replace=True)
        except OutOfMemoryError:
            if function == SUBMIT_FUNCTION:
                raise
            return await self._redis.eval(SCRIPT, 1, SLOT_KEY, *arguments)
        return await self._redis.fcall(function, 1, SLOT_KEY, *arguments)


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
