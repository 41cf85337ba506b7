"""The protocol that all job queues implement, with their limits and error messages.

`joker.jobs.in_process` and `joker.jobs.celery_redis` implement it; one contract test suite runs
against both.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol

from joker.core.errors import plural
from joker.core.joke import GeneratedJoke
from joker.engines.protocol import GenerationListener
from joker.engines.tasks import BATCH_TOKENS
from joker.generation.request import GenerationRequest
from joker.jobs.job import Event, Job

Work = Callable[[GenerationRequest, GenerationListener], list[GeneratedJoke]]
"""What a worker does with a job: tells its jokes, as `joker.generation.teller.Teller.tell` does.

Raises `joker.core.errors.JokerError` with a message for the user, or `AbandonedError` if its
listener asks it to stop. Any other exception is a fault, and the job is retried."""


@dataclass(frozen=True, slots=True)
class QueueStats:
    """A queue's load and its workers.

    Attributes:
        waiting: Number of waiting jobs.
        running: Number of running jobs.
        workers: Number of live workers.
        told_seconds_ago: Seconds since a job last succeeded; None before the first.
        memory_bytes: Memory that the queue's Redis uses; None without Redis.
        memory_limit_bytes: Redis's ``maxmemory``; None without a limit.
    """

    waiting: int
    running: int
    workers: int
    told_seconds_ago: float | None
    memory_bytes: int | None = None
    memory_limit_bytes: int | None = None


class JobQueue(Protocol):
    """Accepts jobs and reports their progress.

    Every accepted job reaches a final state: it succeeds once, fails with a reason, or is revoked.
    Some time later it expires; from then on, its id raises `UnknownJobError`.
    """

    async def submit(
        self, request: GenerationRequest, *, key: str | None = None, request_id: str | None = None
    ) -> Job:
        """Submit a job; the same key and request return the same job again.

        Args:
            request: The request.
            key: Idempotency key; belongs to this request until the job expires.
            request_id: Id of the HTTP request, for the workers' logs.

        Raises:
            QueueFullError: If too many jobs wait, or, as `MemoryFullError`, if Redis has no memory
                left.
            KeyConflictError: If the key was used for another request.
            QueueDownError: If the queue cannot be reached.
            QueueStoppedError: If `stop` was called and jobs run in this process.
        """
        ...

    async def get(self, job_id: str) -> Job:
        """Return a job as it is now.

        Raises:
            UnknownJobError: If the job does not exist or has expired.
        """
        ...

    async def cancel(self, job_id: str) -> Job:
        """Revoke a job unless it is final; return the job."""
        ...

    async def wait(self, job_id: str, timeout_seconds: float) -> Job:
        """Return a job once it is final, or as it is after the timeout.

        Raises:
            QueueStoppedError: If `stop` is called meanwhile and the job runs in another process.
        """
        ...

    def events(
        self, job_id: str, after: str | None = None, *, drafts: bool = True
    ) -> AsyncIterator[Event]:
        """Yield a job's events; the last one has its final state.

        Args:
            job_id: The job.
            after: Id of the last event to skip; None yields all.
            drafts: Yield partial text too; workers send it only while a client reads it.

        Raises:
            QueueStoppedError: As `wait` does.
        """
        ...

    async def stats(self) -> QueueStats:
        """Return the queue's load and its number of workers."""
        ...

    async def stop(self) -> None:
        """End all waits; revoke jobs that run in this process."""
        ...

    async def close(self) -> None:
        """Stop and release all resources."""
        ...


MAX_ATTEMPTS = 3

MAX_RUNNING_TOKENS = 2 * BATCH_TOKENS
"""A process starts no further job while its running jobs may need this many tokens; the job that
reaches the limit may exceed it. Twice an engine's batch keeps the batch full while other jobs'
drafts are ranked; more jobs would only finish later, and no other worker could take them."""

LOST_MESSAGE = (
    f"the joke could not be told in {MAX_ATTEMPTS} attempts because of a server error; "
    "try again later"
)
KEY_CONFLICT_MESSAGE = "the idempotency key was used for a different request; use a new key"
MEMORY_FULL_MESSAGE = "the queue's Redis has no memory left for another job; try again later"


def deadline_message(deadline_seconds: float) -> str:
    """Return the error of a job that missed its deadline."""
    return (
        f"the joke was not told within {deadline_seconds:g} "
        f"{plural(deadline_seconds, 'second')}; "
        "ask for fewer jokes or try again later"
    )


def queue_full_message(max_queue_size: int) -> str:
    """Return the error of a job that a full queue rejects."""
    jobs = plural(max_queue_size, "job is", "jobs are")
    return f"{max_queue_size} {jobs} already waiting; try again later"


def unknown_job_message(job_id: str) -> str:
    """Return the error for an unknown job."""
    return f"there is no job {job_id!r}, or it has expired; submit a new one"
