"""The queue's protocol: what every queue promises, in one process or over many machines.

`joker.jobs.in_process` and `joker.jobs.celery_redis` keep it, and one contract suite
runs against both. What a worker does with a job is not the queue's concern: it gets a
`Work` and calls it. The sentences below say why a job failed or was refused, by any queue.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol

from joker.core.joke import GeneratedJoke
from joker.engines.protocol import GenerationListener
from joker.generation.request import GenerationRequest
from joker.jobs.job import Event, Job

Work = Callable[[GenerationRequest, GenerationListener], list[GeneratedJoke]]
"""Tells a request's jokes, as `joker.generation.teller.Teller.tell` does. Raises
`joker.core.errors.JokerError` where it cannot, with a sentence for the person who asked, and
`AbandonedError` once nobody waits; any other exception is a fault, and the job is tried again."""


@dataclass(frozen=True, slots=True)
class QueueStats:
    """What a queue has to do, and who is there to do it.

    Attributes:
        waiting: Jobs that wait for a worker.
        running: Jobs that a worker has in hand.
        workers: Workers that are there; it takes at least one to tell a joke.
        told_seconds_ago: Since any of them told a job's jokes; None before the first.
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
    """Takes jobs in and says what becomes of them.

    A job that was taken in reaches a final state: told once, or failed with a reason. It is
    forgotten some time after that, and asking for it then raises `UnknownJobError`.
    """

    async def submit(
        self, request: GenerationRequest, *, key: str | None = None, request_id: str | None = None
    ) -> Job:
        """Take a job in; the same key and request again give the same job.

        Args:
            request: What is asked for.
            key: Stands for this request for as long as its job is remembered.
            request_id: Names in the workers' logs whoever asked first.

        Raises:
            QueueFullError: If too many jobs wait; nothing was taken in.
            KeyConflictError: If the key stands for another request.
            QueueDownError: If the queue cannot be reached.
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
        """Return a job once it is final, or as it is when the time is up."""
        ...

    def events(self, job_id: str, after: str | None = None) -> AsyncIterator[Event]:
        """Yield a job's events behind one that was seen; the last tells its final state."""
        ...

    async def stats(self) -> QueueStats:
        """Return what there is to do, and who is there to do it."""
        ...

    async def close(self) -> None:
        """Give back what the queue holds; jobs in this process are revoked."""
        ...


MOST_ATTEMPTS = 3

LOST = (
    f"the joke could not be told in {MOST_ATTEMPTS} attempts because of a fault of the server; "
    "try again later"
)
CONFLICT = "the idempotency key stands for another request; use a new key"


def late(deadline_seconds: float) -> str:
    """Return why a job failed that was not told by its deadline."""
    return (
        f"the joke was not told within {deadline_seconds:g} seconds; "
        "ask for fewer jokes or try again later"
    )


def full(max_queue_size: int) -> str:
    """Return why a job is not taken in where so many wait already."""
    return f"{max_queue_size} jobs wait already; try again later"


MEMORY_FULL = "the queue's Redis has no memory for another job; try again later"


def unknown(job_id: str) -> str:
    """Return why nothing can be said of a job."""
    return f"there is no job {job_id!r}, or it has been forgotten; ask for a new one"
