"""A queue over many processes and machines: Celery carries jobs, Redis keeps their records.

This is the side of those who ask; `joker.jobs.leases` is the workers'. A job's record is
written before the job is published, so a message that is lost loses no job.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import re
import secrets
from collections.abc import AsyncIterator
from typing import Any

from kombu.exceptions import OperationalError
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import RedisError

from joker.core.errors import KeyConflictError, QueueFullError, UnknownJobError
from joker.jobs.celery_app import make_celery, publish
from joker.jobs.job import Event, Job, JokeRequest, State
from joker.jobs.messages import CONFLICT, LOST, MOST_ATTEMPTS, full, late, unknown
from joker.jobs.queue import Load
from joker.jobs.records import (
    CONNECTION,
    SCRIPT,
    events_key,
    reaching,
    read_job,
    to_json,
)
from joker.jobs.stream_listener import Arrivals

# How long one read of a stream waits; a deadline that passes meanwhile is seen afterwards.
_BLOCK_SECONDS = 0.5
_CONNECTIONS = 32
_TURN_SECONDS = 20.0
_BEGINNING = "0-0"
_EVENT_ID = re.compile("[0-9]{1,18}-[0-9]{1,18}")

_log = logging.getLogger(__name__)


class CeleryRedisQueue:
    """Keeps `joker.jobs.queue.JobQueue`'s promises while workers and processes come and go.

    Args:
        url: The Redis, as redis://:password@host:port/number.
        max_queue_size: Most jobs that wait.
        deadline_seconds: A job that is not told by then fails, at the latest.
        result_ttl_seconds: How long a final job is remembered.
    """

    def __init__(
        self,
        url: str,
        *,
        max_queue_size: int = 64,
        deadline_seconds: float = 60.0,
        result_ttl_seconds: float = 3600.0,
    ) -> None:
        self._url = url
        self._max_queue_size = max_queue_size
        self._deadline_seconds = deadline_seconds
        self._result_ttl_seconds = result_ttl_seconds
        retry = Retry(ExponentialBackoff(cap=0.5, base=0.05), 3)
        # More calls than connections wait their turn.
        pool: BlockingConnectionPool = BlockingConnectionPool.from_url(
            url, max_connections=_CONNECTIONS, timeout=_TURN_SECONDS, retry=retry, **CONNECTION
        )
        self._redis = Redis.from_pool(pool)
        self._arrivals = Arrivals(self._redis)
        self._script = self._redis.register_script(SCRIPT)
        self._celery = make_celery(url, deadline_seconds)

    async def submit(
        self, request: JokeRequest, *, key: str | None = None, request_id: str | None = None
    ) -> Job:
        """Take a job in; see `JobQueue.submit`."""
        text = to_json(request.to_dict())
        deadline_seconds = request.deadline_within(self._deadline_seconds)
        what, record = await self._call(
            "submit",
            secrets.token_urlsafe(16),
            text,
            to_json(request_id),
            "" if key is None else _digest(key),
            _digest(text),
            to_json(late(deadline_seconds)),
            to_json(LOST),
            self._max_queue_size,
            MOST_ATTEMPTS,
            deadline_seconds,
            self._result_ttl_seconds,
        )
        if what == "full":
            raise QueueFullError(full(self._max_queue_size))
        if what == "conflict":
            raise KeyConflictError(CONFLICT)
        job = read_job(record)
        if what == "new":
            await asyncio.to_thread(self._publish, job.id)
        return job

    async def get(self, job_id: str) -> Job:
        """Return a job as it is now; see `JobQueue.get`."""
        return _known(job_id, await self._call("read", job_id))

    async def cancel(self, job_id: str) -> Job:
        """Revoke a job unless it is final; see `JobQueue.cancel`."""
        return _known(job_id, await self._call("cancel", job_id))

    async def wait(self, job_id: str, timeout_seconds: float) -> Job:
        """Return a job once it is final or the time is up; see `JobQueue.wait`."""
        clock = asyncio.get_running_loop().time
        until = clock() + timeout_seconds
        seen = _BEGINNING
        while True:
            job = await self.get(job_id)
            left = until - clock()
            if job.state.final or left <= 0:
                return job
            for event in await self._read(job_id, seen, min(left, _BLOCK_SECONDS)):
                seen = event.id

    async def events(self, job_id: str, after: str | None = None) -> AsyncIterator[Event]:
        """Yield a job's events behind one that was seen; see `JobQueue.events`."""
        seen = after if after and _EVENT_ID.fullmatch(after) else _BEGINNING
        job = await self.get(job_id)
        while True:
            events = await self._read(job_id, seen, None if job.state.final else _BLOCK_SECONDS)
            for event in events:
                seen = event.id
                yield event
                if event.name == "state" and State(event.data["state"]).final:
                    return
            if job.state.final:
                return
            if not events:
                # Read before its events, so that a job found final has all of them there.
                job = await self.get(job_id)

    async def load(self) -> Load:
        """Return what there is to do, and how many worker processes show signs of life."""
        waiting, running, workers, told_seconds_ago = await self._call("load")
        return Load(
            waiting, running, workers, float(told_seconds_ago) if told_seconds_ago else None
        )

    async def close(self) -> None:
        """Close the connections; jobs go on, for they are the workers'."""
        await self._arrivals.close()
        await self._redis.aclose()
        self._celery.close()

    async def _read(self, job_id: str, seen: str, block_seconds: float | None) -> list[Event]:
        """Return the events behind one, after waiting for the first; None waits for none."""
        key = events_key(job_id)
        with reaching(self._url):
            streams: Any = await self._redis.xread({key: seen})
            if not streams and block_seconds is not None:
                await self._arrivals.wait(key, seen, block_seconds)
                streams = await self._redis.xread({key: seen})
        return [
            Event(event_id, fields["name"], json.loads(fields["data"]))
            for _, entries in streams or ()
            for event_id, fields in entries
        ]

    async def _call(self, *arguments: Any) -> Any:
        with reaching(self._url):
            return await self._script(args=arguments)

    def _publish(self, job_id: str) -> None:
        try:
            publish(self._celery, job_id)
        except (OperationalError, RedisError, OSError) as error:
            # The record is there: a worker's sweep finds the job.
            _log.warning("job %s was not published yet: %s", job_id, error)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _known(job_id: str, record: str | None) -> Job:
    if record is None:
        raise UnknownJobError(unknown(job_id))
    return read_job(record)
