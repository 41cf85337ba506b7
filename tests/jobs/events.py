"""How tests read a job's events."""

from __future__ import annotations

from contextlib import aclosing

from joker.jobs.job import Event, Job, StateEvent
from joker.jobs.queue import JobQueue


async def all_events(queue: JobQueue, job: Job, after: str | None = None) -> list[Event]:
    async with aclosing(queue.events(job.id, after)) as events:  # type: ignore[type-var]
        return [event async for event in events]


async def until_told(queue: JobQueue, job: Job) -> list[Event]:
    """Wait until the first joke of a job is told; return the events up to then."""
    heard = []
    async with aclosing(queue.events(job.id)) as events:  # type: ignore[type-var]
        async for event in events:
            heard.append(event)
            if event.name == "joke":
                break
    return heard


def last_job(events: list[Event]) -> Job:
    """Return the job of the last event, which tells its state."""
    assert isinstance(events[-1], StateEvent)
    return events[-1].job
