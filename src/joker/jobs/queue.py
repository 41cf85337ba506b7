"""The queue's protocol: what every queue promises, in one process or over many machines.

`joker.jobs.in_process` and `joker.jobs.celery_redis` keep it, and one contract suite
runs against both. What a worker does with a job is not the queue's matter: it gets a
`Work` and calls it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol

from joker.jobs.job import Event, Job, JokeRequest, JokeResult


class Progress(Protocol):
    """What work tells the queue while it goes on."""

    def partial(self, index: int, question: str, answer: str) -> None:
        """Say how much of a joke's text is there so far; another try begins anew."""

    def joke(self, index: int, joke: JokeResult) -> None:
        """Say that a joke is told."""

    def stopped(self) -> bool:
        """Say whether the job was cancelled, is past its deadline, or is another worker's now."""


Work = Callable[[JokeRequest, Progress], list[JokeResult]]
"""Tells a request's jokes. Raises `joker.core.errors.JokerError` where it cannot, with a sentence
for the person who asked; any other exception is a fault, and the job is tried again."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a queue has to do, and who is there to do it.

    Attributes:
        waiting: Jobs that wait for a worker.
        running: Jobs that a worker has in hand.
        workers: Workers that are there; it takes at least one to tell a joke.
        told_seconds_ago: Since any of them told a job's jokes; None before the first.
    """

    waiting: int
    running: int
    workers: int
    told_seconds_ago: float | None


class JobQueue(Protocol):
    """Takes jobs in and says what becomes of them.

    A job that was taken in reaches a final state: told once, or failed with a reason. It is
    forgotten some time after that, and asking for it then raises `UnknownJobError`.
    """

    async def submit(
        self, request: JokeRequest, *, key: str | None = None, request_id: str | None = None
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

    async def load(self) -> Load:
        """Return what there is to do, and who is there to do it."""
        ...

    async def close(self) -> None:
        """Give back what the queue holds; jobs in this process are revoked."""
        ...
