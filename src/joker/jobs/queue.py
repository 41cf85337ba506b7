"""The protocol of all queues, in one process or over many machines.

`joker.jobs.in_process` and `joker.jobs.celery_redis` implement it, and one contract suite runs
against both. What a worker does with a job is not the queue's concern: it calls a `Work`. The
messages of failed and refused jobs, below, are the same in every queue.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol

from joker.core.joke import GeneratedJoke
from joker.core.plural import plural
from joker.engines.protocol import GenerationListener
from joker.engines.tasks import BATCH_TOKENS
from joker.generation.request import GenerationRequest
from joker.jobs.job import Event, Job

Work = Callable[[GenerationRequest, GenerationListener], list[GeneratedJoke]]
"""Tells a request's jokes, as `joker.generation.teller.Teller.tell` does. Raises
`joker.core.errors.JokerError` with a message for the user if it cannot, and `AbandonedError` if its
listener asks it to stop; any other exception is a fault, and the job is retried."""


@dataclass(frozen=True, slots=True)
class QueueStats:
    """A queue's load and its workers.

    Attributes:
        waiting: Jobs that wait for a worker.
        running: Jobs that a worker works on.
        workers: Live workers.
        told_seconds_ago: Seconds since a job last succeeded; None before the first.
        memory_bytes: Memory that the queue's Redis uses; None without one.
        memory_limit_bytes: Memory that it may use; None without a limit.
    """

    waiting: int
    running: int
    workers: int
    told_seconds_ago: float | None
    memory_bytes: int | None = None
    memory_limit_bytes: int | None = None


class JobQueue(Protocol):
    """Accepts jobs and reports their progress.

    Every accepted job reaches a final state: it is told once, or fails with a reason. It expires
    some time after that, and asking for it then raises `UnknownJobError`.
    """

    async def submit(
        self, request: GenerationRequest, *, key: str | None = None, request_id: str | None = None
    ) -> Job:
        """Accept a job; the same key and request give the same job again.

        Args:
            request: The request.
            key: Idempotency key; stands for this request until its job expires.
            request_id: Id of the first request with this key, for the workers' logs.

        Raises:
            QueueFullError: If too many jobs wait, or as `MemoryFullError` if its Redis has no
                memory left; nothing was accepted.
            KeyConflictError: If the key stands for another request.
            QueueDownError: If the queue cannot be reached.
            QueueStoppedError: If `stop` was called and jobs run in this process.
        """
        ...

    async def get(self, job_id: str) -> Job:
        """Return a job as it is now.

        Raises:
            UnknownJobError: If there is no such job, or no longer.
        """
        ...

    async def cancel(self, job_id: str) -> Job:
        """Revoke a job unless it is final; return it as it then is."""
        ...

    async def wait(self, job_id: str, timeout_seconds: float) -> Job:
        """Return a job once it is final, or as it is after the timeout.

        Raises:
            QueueStoppedError: If `stop` is called meanwhile, and the job goes on elsewhere.
        """
        ...

    def events(
        self, job_id: str, after: str | None = None, *, drafts: bool = True
    ) -> AsyncIterator[Event]:
        """Yield a job's events after the given one; the last has its final state.

        Args:
            job_id: The job.
            after: Id of an event; None yields all.
            drafts: Yield partial text as well. It is made only while somebody asks for it.

        Raises:
            QueueStoppedError: As `wait` does.
        """
        ...

    async def stats(self) -> QueueStats:
        """Return the load and the number of workers."""
        ...

    async def stop(self) -> None:
        """Let nobody wait any longer; jobs in this process are revoked, others go on."""
        ...

    async def close(self) -> None:
        """Stop, and release all resources."""
        ...


MOST_ATTEMPTS = 3

TOKENS_AT_ONCE = 2 * BATCH_TOKENS
"""A process starts no further job while its jobs may occupy so many tokens or more: twice what an
engine's batch holds, so that it stays full while the drafts of other jobs are ranked. More would
only finish later, and other workers could not take them. The job that reaches the limit may exceed
it by any amount."""

LOST = (
    f"the joke could not be told in {MOST_ATTEMPTS} attempts because of a server error; "
    "try again later"
)
CONFLICT = "the idempotency key was used for a different request; use a new key"


def late(deadline_seconds: float) -> str:
    """Return the error of a job that missed its deadline."""
    return (
        f"the joke was not told within {deadline_seconds:g} "
        f"{plural(deadline_seconds, 'second')}; "
        "ask for fewer jokes or try again later"
    )


def full(max_queue_size: int) -> str:
    """Return the error of a job that a full queue refuses."""
    jobs = plural(max_queue_size, "job is", "jobs are")
    return f"{max_queue_size} {jobs} already waiting; try again later"


MEMORY_FULL = "the queue's Redis has no memory left for another job; try again later"


def unknown(job_id: str) -> str:
    """Return the error for an unknown job."""
    return f"there is no job {job_id!r}, or it has expired; submit a new one"
